//! stub
use crate::node::Node;
use std::sync::Arc;
pub(crate) fn start(_node: &Arc<Node>, _listener: tokio::net::TcpListener) {}
