//! Any implementation of the traits as a gRPC server on a unix socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use skiff_base::Shutdown;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

use super::generated::image_service_server::ImageServiceServer;
use super::generated::runtime_service_server::RuntimeServiceServer;
use super::service::{ImageService, RuntimeService};

/// Adapter from the object-safe traits to tonic's.
pub(super) struct Served<T: ?Sized>(pub(super) Arc<T>);

/// Serves `runtime` and `images` on a unix socket (mode 0600) until `shutdown`, and removes the
/// socket afterwards.
///
/// # Errors
/// When the socket cannot be bound or the transport fails.
pub async fn serve(
    socket: &Path,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    shutdown: Shutdown,
) -> io::Result<()> {
    remove_stale(socket)?;
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let result = tonic::transport::Server::builder()
        .add_service(RuntimeServiceServer::new(Served(runtime)))
        .add_service(ImageServiceServer::new(Served(images)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move { shutdown.wait().await })
        .await
        .map_err(io::Error::other);
    remove_stale(socket)?;
    result
}

/// Removes a socket left by a killed server; anything that is not a socket is not ours.
fn remove_stale(socket: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(socket) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(socket),
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{}: exists and is no socket", socket.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
