//! `skiff image`: the images of the node.

use std::path::Path;

use anyhow::{Context, Result};
use futures::StreamExt;

use super::{Session, light_runtime};
use crate::cli::{Format, ImageCommand, Output};
use crate::control::{Client, Upload};

pub fn run(session: &Session, command: &ImageCommand) -> Result<()> {
    let profile = session.existing()?;
    let socket = profile.control_socket();
    let client = Client::new(&socket);
    light_runtime()?.block_on(async {
        match command {
            ImageCommand::Load { archive } => {
                for name in client.load_images(open(archive).await?).await? {
                    println!("loaded {name}");
                }
                Ok(())
            }
            ImageCommand::Pull { image } => {
                println!("pulled {image}: {}", client.pull_image(image).await?);
                Ok(())
            }
            ImageCommand::Ls(output) => list(&client, output).await,
            ImageCommand::Rm { images } => {
                for image in images {
                    client.remove_image(image).await?;
                    println!("removed {image}");
                }
                Ok(())
            }
        }
    })
}

async fn open(archive: &Path) -> Result<Upload> {
    if archive == Path::new("-") {
        return Ok(tokio_util::io::ReaderStream::new(tokio::io::stdin()).boxed());
    }
    let file = tokio::fs::File::open(archive).await.with_context(|| format!("open {}", archive.display()))?;
    Ok(tokio_util::io::ReaderStream::with_capacity(file, 256 << 10).boxed())
}

async fn list(client: &Client<'_>, output: &Output) -> Result<()> {
    let images = client.images().await?;
    match output.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&images)?),
        Format::Text => {
            println!("{:<56} {:<14} {:>10}", "IMAGE", "ID", "SIZE");
            for image in images {
                let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
                let size = format!("{:.1} MB", image.size as f64 / 1e6);
                let untagged = ["<none>".to_owned()];
                let tags = if image.tags.is_empty() { &untagged[..] } else { &image.tags[..] };
                for tag in tags {
                    println!("{tag:<56} {id:<14} {size:>10}");
                }
            }
        }
    }
    Ok(())
}
