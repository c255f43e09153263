//! The part of OTLP that spans need (`opentelemetry.proto.trace.v1`), written out by hand: nobody
//! needs `protoc`, and the crates that hold all of it are larger than all of tracing here.

use prost::{Message, Oneof};
use skiff_base::Timestamp;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Value", tags = "1")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Value {
    #[prost(string, tag = "1")]
    Text(String),
}

/// `Span.SpanKind`
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
}

/// `Status.STATUS_CODE_ERROR`
const ERROR: i32 = 2;

impl KeyValue {
    pub(super) fn text(key: &str, value: String) -> Self {
        Self { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::Text(value)) }) }
    }
}

impl Span {
    pub(super) fn new(trace_id: [u8; 16], id: [u8; 8], parent: Option<[u8; 8]>, name: String, kind: Kind) -> Self {
        Self {
            trace_id: trace_id.to_vec(),
            span_id: id.to_vec(),
            parent_span_id: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
            name,
            kind: kind as i32,
            ..Self::default()
        }
    }

    pub(super) fn times(&mut self, began: Timestamp, ended: Timestamp) {
        let nanos = |time: Timestamp| u64::try_from(time.as_nanos()).unwrap_or(0);
        (self.start_time_unix_nano, self.end_time_unix_nano) = (nanos(began), nanos(ended));
    }

    pub(super) fn attributes(&mut self, attributes: Vec<(&'static str, String)>) {
        self.attributes.extend(attributes.into_iter().map(|(key, value)| KeyValue::text(key, value)));
    }

    pub(super) fn link(&mut self, link: Option<([u8; 16], [u8; 8])>) {
        self.links.extend(link.map(|(trace, span)| Link { trace_id: trace.to_vec(), span_id: span.to_vec() }));
    }

    pub(super) fn fail(&mut self) {
        self.status = Some(Status { code: ERROR });
    }
}
