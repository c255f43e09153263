//! `skiff kubeconfig`: the way into the cluster.

use anyhow::Result;

use super::Session;
use crate::cli;
use crate::kubeconfig::{Entry, Invoker, merge, render};
use crate::pki::{Leaf, Pki};
use crate::profile::Profile;

pub fn run(session: &Session, options: &cli::Kubeconfig) -> Result<()> {
    let profile = session.existing()?;
    let entry = entry(session, &profile)?;
    if options.merge {
        let invoker = Invoker::current()?;
        let path = invoker.kubeconfig();
        merge(&path, &entry, &invoker)?;
        println!("context {} is now current in {}", entry.name, path.display());
    } else {
        print!("{}", render(&entry));
    }
    Ok(())
}

/// The administrator's way into `profile`.
pub fn entry(session: &Session, profile: &Profile) -> Result<Entry> {
    let pki = Pki::open(&profile.pki(), session.clock.clone())?;
    let authority = pki.authority("ca", "kubernetes-ca")?;
    let admin = Leaf {
        common_name: "kubernetes-admin".to_owned(),
        // Bound to cluster-admin by upstream's bootstrap policy.
        organizations: vec!["system:masters".to_owned()],
        ..Leaf::default()
    };
    Ok(Entry {
        name: profile.context(),
        server: profile.server_url(),
        authority: authority.certificate().to_owned(),
        identity: pki.leaf(&authority, "admin", &admin)?,
    })
}
