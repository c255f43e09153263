//! Links in HTML pages, rewritten as the page streams through.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::{DeflateDecoder, GzDecoder};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use lol_html::errors::RewritingError;
use lol_html::send::{Element, ElementContentHandlers, HtmlRewriter, Settings};
use lol_html::{MemorySettings, Selector};
use parking_lot::Mutex;

use super::location::Exchange;
use crate::body::BodyError;

/// One tag and the open elements of a page may take this much; what is beyond goes through as it is.
const PARSER_BYTES_MAX: usize = 1024 * 1024;
/// Compressed bytes unpacked at a time: at gzip's best ratio these become 16 MiB.
const COMPRESSED_CHUNK_BYTES: usize = 16 * 1024;

/// The attributes that hold a URL, by element: upstream's table.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// How a page is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    /// The packing of an answer; `None` for one that cannot be looked into.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("") {
            "" | "identity" => Some(Self::Identity),
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

enum Unpacker {
    Identity,
    Gzip(Box<GzDecoder<Vec<u8>>>),
    Deflate(Box<DeflateDecoder<Vec<u8>>>),
}

/// What the rewriter has written and nobody has taken yet.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn push(&self, bytes: &[u8]) {
        self.0.lock().extend_from_slice(bytes);
    }

    fn take(&self) -> Option<Bytes> {
        let out = std::mem::take(&mut *self.0.lock());
        (!out.is_empty()).then(|| Bytes::from(out))
    }
}

type Chunks = BoxStream<'static, Result<Bytes, BodyError>>;
type Rewriter = HtmlRewriter<'static, Box<dyn FnMut(&[u8]) + Send>>;

/// A page on its way.
struct Page {
    chunks: Chunks,
    unpacker: Unpacker,
    /// `None` from where the page asks for more memory than it may have: the rest is as it is.
    rewriter: Option<Rewriter>,
    sink: Sink,
}

/// The page with its links rewritten, unpacked.
pub(super) fn rewrite(chunks: Chunks, encoding: Encoding, exchange: Exchange) -> Chunks {
    let sink = Sink::default();
    let unpacker = match encoding {
        Encoding::Identity => Unpacker::Identity,
        Encoding::Gzip => Unpacker::Gzip(Box::new(GzDecoder::new(Vec::new()))),
        Encoding::Deflate => Unpacker::Deflate(Box::new(DeflateDecoder::new(Vec::new()))),
    };
    let page = Page { chunks, unpacker, rewriter: Some(rewriter(exchange, sink.clone())), sink };
    futures::stream::unfold(Some(page), |page| async move {
        let mut page = page?;
        loop {
            let fed = match page.chunks.next().await {
                Some(chunk) => chunk.and_then(|chunk| page.feed(&chunk)),
                None => {
                    let ended = page.rewriter.take().map_or(Ok(()), Rewriter::end);
                    return match ended {
                        Err(error) => Some((Err(failed(&error)), None)),
                        Ok(()) => page.sink.take().map(|out| (Ok(out), None)),
                    };
                }
            };
            if let Err(error) = fed {
                return Some((Err(error), None));
            }
            if let Some(out) = page.sink.take() {
                return Some((Ok(out), Some(page)));
            }
        }
    })
    .boxed()
}

fn failed(error: &dyn std::fmt::Display) -> BodyError {
    BodyError(format!("rewrite links: {error}"))
}

impl Page {
    fn feed(&mut self, chunk: &[u8]) -> Result<(), BodyError> {
        for part in chunk.chunks(COMPRESSED_CHUNK_BYTES) {
            let unpacked = match &mut self.unpacker {
                Unpacker::Identity => part.to_vec(),
                Unpacker::Gzip(decoder) => {
                    decoder.write_all(part).and_then(|()| decoder.flush()).map_err(|error| failed(&error))?;
                    std::mem::take(decoder.get_mut())
                }
                Unpacker::Deflate(decoder) => {
                    decoder.write_all(part).and_then(|()| decoder.flush()).map_err(|error| failed(&error))?;
                    std::mem::take(decoder.get_mut())
                }
            };
            match &mut self.rewriter {
                None => self.sink.push(&unpacked),
                Some(rewriter) => match rewriter.write(&unpacked) {
                    Ok(()) => {}
                    // What it held has gone through as it was.
                    Err(RewritingError::MemoryLimitExceeded(_)) => self.rewriter = None,
                    Err(error) => return Err(failed(&error)),
                },
            }
        }
        Ok(())
    }
}

fn rewriter(exchange: Exchange, sink: Sink) -> Rewriter {
    let handler = move |element: &mut Element<'_, '_>| -> lol_html::HandlerResult {
        let tag = element.tag_name();
        let Some((_, attributes)) = LINKS.iter().find(|(known, _)| *known == tag) else { return Ok(()) };
        for attribute in *attributes {
            let Some(url) = element.get_attribute(attribute) else { continue };
            let rewritten = exchange.url(&url);
            if rewritten != url {
                element.set_attribute(attribute, &rewritten)?;
            }
        }
        Ok(())
    };
    let mut settings = Settings::new_send().with_strict(false).with_memory_settings(
        MemorySettings::new()
            .with_max_allowed_memory_usage(PARSER_BYTES_MAX)
            .with_graceful_bail_out_on_memory_limit_exceeded(true),
    );
    // The selector is a constant of this file, which the test below uses.
    if let Ok(every) = "*".parse::<Selector>() {
        settings = settings.append_element_content_handler((
            std::borrow::Cow::Owned(every),
            ElementContentHandlers::default().element(handler),
        ));
    }
    HtmlRewriter::new(settings, Box::new(move |bytes: &[u8]| sink.push(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::Rewrite;

    async fn rewritten(parts: Vec<Vec<u8>>, encoding: Encoding) -> String {
        let page = futures::stream::iter(parts.into_iter().map(|part| Ok(Bytes::from(part)))).boxed();
        let exchange = Rewrite::below("/proxy").between("10.0.0.1:80", "kube");
        let chunks: Vec<_> = super::rewrite(page, encoding, exchange).collect().await;
        chunks.into_iter().map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap()).collect()
    }

    #[tokio::test]
    async fn links_move_wherever_the_chunks_break() {
        let page = r#"<html><a href="/x">/x</a><img src='y' usemap="/m"><b title="/z">&amp;</b><!-- <a href="/c"> -->"#;
        let expected = page.replace(r#"href="/x""#, r#"href="/proxy/x""#).replace(r#""/m""#, r#""/proxy/m""#);
        assert_eq!(rewritten(vec![page.into()], Encoding::Identity).await, expected);
        let bytes: Vec<Vec<u8>> = page.bytes().map(|byte| vec![byte]).collect();
        assert_eq!(rewritten(bytes, Encoding::Identity).await, expected);
    }

    #[tokio::test]
    async fn packed_pages_are_unpacked() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"<a href=/x>").unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(rewritten(vec![packed], Encoding::Gzip).await, r#"<a href="/proxy/x">"#);
    }

    #[tokio::test]
    async fn a_tag_without_end_costs_no_more_than_its_bound() {
        let open = "<a href=\"".to_owned() + &"/".repeat(PARSER_BYTES_MAX * 2);
        let through = rewritten(vec![open.clone().into_bytes()], Encoding::Identity).await;
        assert_eq!(through.len(), open.len());
    }
}
