//! The API server on the memory store, entered as components and as clients enter it.

mod access;
mod admission;
mod aggregation;
mod audit;
mod authn;
mod authz;
mod backend;
mod certificates;
mod custom;
mod custom_conversion;
mod flow_control;
mod generated;
mod lists;
mod metrics;
mod node_authorizer;
mod outbound;
mod proxy;
mod remote;
mod resource_metrics;
mod services;
mod support;
mod tls;
mod watches;
mod watching;
mod webhooks;
mod writes;
