//! Which sandbox holds which address: a folder with one file per address.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::HostPort;
use crate::cidr::Cidr;
use crate::error::{Cause, NetError, Result};
use crate::proxy::Protocol;

/// Offsets 0 and 1 are the network and, by custom, the router.
const FIRST_OFFSET: u32 = 2;

/// One sandbox's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reservation {
    pub(super) id: String,
    pub(super) address: Ipv4Addr,
    pub(super) host_ports: Vec<HostPort>,
}

/// The reservations of one pod CIDR.
pub(super) struct Addresses {
    folder: PathBuf,
    cidr: Cidr,
    by_id: BTreeMap<String, Reservation>,
    taken: BTreeMap<Ipv4Addr, String>,
    /// Where to look next: a freed address rests as long as possible.
    cursor: u32,
}

impl Addresses {
    /// Reads the reservations in `folder`; files that a crash cut short are dropped.
    pub(super) fn open(folder: PathBuf, cidr: Cidr) -> Result<Self> {
        let fail = |error: std::io::Error| NetError::io("read pod addresses in", folder.display().to_string(), &error);
        std::fs::create_dir_all(&folder).map_err(fail)?;
        let mut by_id = BTreeMap::new();
        let mut taken = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let text = std::fs::read_to_string(entry.path()).map_err(fail)?;
            let address = entry.file_name().to_str().and_then(|name| name.parse().ok());
            match address.and_then(|address| decode(address, &text)) {
                Some(reservation) if cidr.contains(reservation.address) => {
                    taken.insert(reservation.address, reservation.id.clone());
                    by_id.insert(reservation.id.clone(), reservation);
                }
                _ => {
                    tracing::warn!(file = %entry.path().display(), "dropping an unreadable pod address reservation");
                    std::fs::remove_file(entry.path()).map_err(fail)?;
                }
            }
        }
        let highest = taken.keys().last().map_or(FIRST_OFFSET, |it| it.to_bits() - cidr.network().to_bits() + 1);
        Ok(Self { folder, cidr, by_id, taken, cursor: highest })
    }

    pub(super) fn of(&self, id: &str) -> Option<&Reservation> {
        self.by_id.get(id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Reservation> {
        self.by_id.values()
    }

    /// Gives `id` an address that nobody holds.
    pub(super) fn reserve(&mut self, id: &str, host_ports: &[HostPort]) -> Result<Ipv4Addr> {
        if id.is_empty() || id.chars().any(char::is_whitespace) {
            return Err(NetError::invalid(
                "reserve pod address for",
                id,
                "a sandbox id has no spaces and is not empty",
            ));
        }
        let last = u32::try_from(self.cidr.size() - 1).unwrap_or(u32::MAX);
        let places = last.saturating_sub(FIRST_OFFSET);
        for step in 0..places {
            let offset = FIRST_OFFSET + (self.cursor.saturating_sub(FIRST_OFFSET) + step) % places;
            let Some(address) = self.cidr.nth(offset) else { continue };
            if self.taken.contains_key(&address) {
                continue;
            }
            let reservation = Reservation { id: id.to_owned(), address, host_ports: host_ports.to_vec() };
            self.write(&reservation)?;
            self.cursor = offset + 1;
            self.taken.insert(address, id.to_owned());
            self.by_id.insert(id.to_owned(), reservation);
            return Ok(address);
        }
        Err(NetError::new("reserve pod address for", id, Cause::Exhausted(format!("{} is full", self.cidr))))
    }

    /// Frees the address of `id`.
    pub(super) fn release(&mut self, id: &str) -> Result<()> {
        let Some(reservation) = self.by_id.get(id) else { return Ok(()) };
        let path = self.folder.join(reservation.address.to_string());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(NetError::io("release pod address", path.display().to_string(), &error));
            }
            _ => {}
        }
        self.taken.remove(&reservation.address);
        self.by_id.remove(id);
        Ok(())
    }

    fn write(&self, reservation: &Reservation) -> Result<()> {
        let path = self.folder.join(reservation.address.to_string());
        let fail = |error: std::io::Error| NetError::io("reserve pod address", path.display().to_string(), &error);
        let mut file: File = OpenOptions::new().write(true).create_new(true).open(&path).map_err(fail)?;
        file.write_all(encode(reservation).as_bytes()).map_err(fail)
    }
}

/// The id, then one host port a line. The last line is `end`, so that a torn file is seen.
fn encode(reservation: &Reservation) -> String {
    let mut text = format!("{}\n", reservation.id);
    for port in &reservation.host_ports {
        let ip = port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        text.push_str(&format!("{} {ip} {} {}\n", port.protocol, port.host_port, port.pod_port));
    }
    text.push_str("end\n");
    text
}

fn decode(address: Ipv4Addr, text: &str) -> Option<Reservation> {
    let mut lines: Vec<&str> = text.strip_suffix("end\n")?.lines().collect();
    if lines.is_empty() {
        return None;
    }
    let id = lines.remove(0).to_owned();
    let host_ports = lines.into_iter().map(decode_port).collect::<Option<_>>()?;
    Some(Reservation { id, address, host_ports })
}

fn decode_port(line: &str) -> Option<HostPort> {
    let mut words = line.split(' ');
    let protocol = Protocol::parse(words.next()?)?;
    let ip: Ipv4Addr = words.next()?.parse().ok()?;
    Some(HostPort {
        host_ip: (!ip.is_unspecified()).then_some(ip),
        host_port: words.next()?.parse().ok()?,
        pod_port: words.next()?.parse().ok()?,
        protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &tempfile::TempDir) -> Addresses {
        Addresses::open(folder.path().to_owned(), "10.244.0.0/29".parse().unwrap()).unwrap()
    }

    #[test]
    fn reservations_survive_a_restart_and_are_never_given_twice() {
        let folder = tempfile::tempdir().unwrap();
        let port = HostPort { host_ip: None, host_port: 80, pod_port: 8080, protocol: Protocol::Tcp };
        let first = open(&folder).reserve("a", &[port]).unwrap();
        let mut again = open(&folder);
        assert_eq!(again.of("a").unwrap().host_ports, [port]);
        assert_ne!(again.reserve("b", &[]).unwrap(), first);
    }

    #[test]
    fn a_freed_address_rests_and_a_full_network_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut addresses = open(&folder);
        let first = addresses.reserve("a", &[]).unwrap();
        addresses.release("a").unwrap();
        assert_ne!(addresses.reserve("b", &[]).unwrap(), first);
        for id in ["c", "d", "e", "f"] {
            addresses.reserve(id, &[]).unwrap();
        }
        let error = addresses.reserve("g", &[]).unwrap_err();
        assert_eq!(error.to_string(), "reserve pod address for g: 10.244.0.0/29 is full");
    }

    #[test]
    fn a_torn_reservation_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("10.244.0.2"), "a\n").unwrap();
        assert_eq!(open(&folder).all().count(), 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
