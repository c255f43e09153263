//! A host, a machine and pods in namespaces of the test's own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skiff_net::netlink::route::{Link, Routes};
use skiff_net::pod::{HostPort, PodNetwork};
use skiff_net::{ClusterTag, Machine, MachineConfig, Namespace};

pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) struct Lab {
    pub(crate) folder: Folder,
    pub(crate) host: Namespace,
    pub(crate) machine: Arc<Machine>,
    pub(crate) pods: PodNetwork,
}

/// A temporary folder that keeps no namespaces when a test fails.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
            if Namespace::open(&entry.path()).is_ok() {
                let _ = Namespace::remove(&entry.path());
            }
        }
    }
}

pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) namespace: Namespace,
    pub(crate) address: Ipv4Addr,
}

/// Runs `test` in a fresh "host" namespace with one machine and checks that nothing stays.
pub(crate) fn lab(test: impl FnOnce(&Lab) + Send) {
    on_fresh_host(|_| {
        let lab = Lab::new();
        test(&lab);
        lab.end();
    });
}

/// Runs `test` on a thread in a new namespace that plays the host.
pub(crate) fn on_fresh_host(test: impl FnOnce(Namespace) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let mut links = Routes::open().unwrap();
            let loopback = links.index("lo").unwrap();
            links.set_up(loopback).unwrap();
            test(Namespace::current().unwrap());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub(crate) fn config(folder: &Folder, host: u8) -> MachineConfig {
    MachineConfig {
        cluster: ClusterTag::new([0xab, 0xcd, 0xef]),
        subnet: 7,
        host,
        namespace: folder.path().join(format!("node-{host}")),
        pod_cidr: format!("10.244.{}.0/24", host - 2).parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
    }
}

impl Lab {
    fn new() -> Self {
        let folder = Folder::new();
        let (machine, _) = Machine::ensure(config(&folder, 2)).unwrap();
        let machine = Arc::new(machine);
        let pods = PodNetwork::open(machine.clone(), folder.path().join("addresses")).unwrap();
        Self { folder, host: Namespace::current().unwrap(), machine, pods }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn pod(&self, id: &str, ports: &[HostPort]) -> Pod {
        let namespace = Namespace::ensure(&self.path(id)).unwrap();
        let address = block_on(self.pods.attach(id, &self.path(id), ports)).unwrap();
        Pod { id: id.to_owned(), namespace, address }
    }

    /// Detaches everything, removes the machine and checks that the host is as before.
    fn end(self) {
        for (id, _) in self.pods.attached() {
            block_on(self.pods.detach(&id)).unwrap();
            Namespace::remove(&self.path(&id)).unwrap();
        }
        let inside = self.machine.namespace().run(|| Routes::open().unwrap().links().unwrap()).unwrap();
        assert_eq!(names(&inside), ["lo", "eth0"], "links left in the machine");
        Machine::delete(self.machine.config()).unwrap();
        let left = Routes::open().unwrap().links().unwrap();
        assert_eq!(names(&left), ["lo"], "links left on the host");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(self.folder.path().to_str().unwrap()), "namespaces left mounted");
    }
}

pub(crate) fn names(links: &[Link]) -> Vec<&str> {
    links.iter().map(|link| link.name.as_str()).collect()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Pod {
    /// Answers every TCP connection with "<pod> <client address>".
    pub(crate) fn serve(&self, port: u16) {
        serve(&self.namespace, &self.id, (Ipv4Addr::UNSPECIFIED, port).into());
    }

    /// Answers every datagram likewise.
    pub(crate) fn serve_udp(&self, port: u16) {
        let socket = self.namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).unwrap();
        let id = self.id.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{id} {}", from.ip()).as_bytes(), from);
            }
        });
    }
}

pub(crate) fn serve(namespace: &Namespace, id: &str, address: SocketAddr) {
    let listener = namespace.run(|| std::net::TcpListener::bind(address).unwrap()).unwrap();
    let id = id.to_owned();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = stream.write_all(format!("{id} {}", from.ip()).as_bytes());
        }
    });
}

/// Who answers at `address` when asked from `namespace`, or why nobody does.
pub(crate) fn ask(namespace: &Namespace, address: impl Into<SocketAddr> + Send) -> Result<String, std::io::ErrorKind> {
    let address = address.into();
    namespace
        .run(|| {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
        .unwrap()
        .map_err(|error: std::io::Error| error.kind())
}

/// Asks by datagram from a socket that keeps its port.
pub(crate) fn ask_udp(socket: &UdpSocket, address: SocketAddrV4) -> Result<String, std::io::ErrorKind> {
    socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    socket.send_to(b"?", address).map_err(|error| error.kind())?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).map_err(|error| error.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
