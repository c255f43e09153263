//! Values of the libraries that are neither data nor containers.

use std::net::IpAddr;
use std::sync::Arc;

use skiff_object::quantity::Quantity;

use crate::authorizer::{Check, Decision, Subject};
use crate::library::cidr::Cidr;
use crate::library::format::Format;
use crate::library::semver::Semver;
use crate::library::url::Url;
use crate::types::Type;

/// A value of a library.
#[derive(Clone, Debug, PartialEq)]
pub enum Opaque {
    /// `kubernetes.Quantity`
    Quantity(Quantity),
    /// `net.IP`
    Ip(IpAddr),
    /// `net.CIDR`
    Cidr(Cidr),
    /// `kubernetes.URL`
    Url(Arc<Url>),
    /// `kubernetes.Semver`
    Semver(Arc<Semver>),
    /// `kubernetes.NamedFormat`
    Format(&'static Format),
    /// `kubernetes.authorization.Authorizer`
    Authorizer(Subject),
    /// `kubernetes.authorization.PathCheck`, `GroupCheck` or `ResourceCheck`
    Check(Arc<Check>),
    /// `kubernetes.authorization.Decision`
    Decision(Arc<Decision>),
}

impl Opaque {
    pub(crate) fn type_of(&self) -> Type {
        match self {
            Self::Ip(_) => Type::read("net.IP"),
            Self::Cidr(_) => Type::read("net.CIDR"),
            Self::Quantity(_) => Type::object("kubernetes.Quantity"),
            Self::Url(_) => Type::object("kubernetes.URL"),
            Self::Semver(_) => Type::object("kubernetes.Semver"),
            Self::Format(_) => Type::object("kubernetes.NamedFormat"),
            Self::Authorizer(_) => Type::object("kubernetes.authorization.Authorizer"),
            Self::Check(check) => Type::object(match **check {
                Check::Path { .. } => "kubernetes.authorization.PathCheck",
                Check::Resource { ref resource, .. } if resource.is_empty() => "kubernetes.authorization.GroupCheck",
                Check::Resource { .. } => "kubernetes.authorization.ResourceCheck",
            }),
            Self::Decision(_) => Type::object("kubernetes.authorization.Decision"),
        }
    }

    /// Addresses count the bytes they are made of.
    pub(crate) fn cost_size(&self) -> u64 {
        match self {
            Self::Ip(IpAddr::V4(_)) => 4,
            Self::Ip(IpAddr::V6(_)) => 16,
            Self::Cidr(cidr) => u64::from(cidr.prefix).div_ceil(8),
            _ => 1,
        }
    }
}
