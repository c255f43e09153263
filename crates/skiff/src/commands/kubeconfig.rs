//! `skiff kubeconfig`: the way into the cluster.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Session;
use crate::cli;
use crate::kubeconfig::{Entry, Invoker, merge, remove, render};
use crate::pki::{Leaf, Pki};
use crate::profile::{Before, Profile};

pub fn run(session: &Session, options: &cli::Kubeconfig) -> Result<()> {
    let profile = session.existing()?;
    if options.merge {
        let path = put(session, &profile)?;
        println!("context {} is now current in {}", profile.context(), path.display());
    } else {
        print!("{}", render(&entry(session, &profile)?));
    }
    Ok(())
}

/// Makes `profile` current in the user's kubeconfig and remembers what was; gives the file.
pub fn put(session: &Session, profile: &Profile) -> Result<PathBuf> {
    let invoker = Invoker::current()?;
    let file = invoker.kubeconfig();
    let context = merge(&file, &entry(session, profile)?, &invoker)?;
    let before = Before { file: std::path::absolute(&file).context("find the kubeconfig")?, context };
    // Later switches between clusters of this machine are not what the user had before them.
    let is_known = profile.before()?.is_some_and(|known| known.file == before.file);
    if !is_known && before.context != profile.context() {
        profile.set_before(&before)?;
    }
    Ok(file)
}

/// Takes `profile` out of the kubeconfig it was put into, and out of the user's present one.
pub fn take_out(session: &Session, profile: &Profile, before: Option<&Before>) -> Result<()> {
    let invoker = Invoker::current()?;
    let name = profile.context();
    let context = before.map_or("", |before| before.context.as_str());
    if let Some(before) = before {
        // Who would have gone back to this cluster goes back to what was before it.
        for other in Profile::all(&session.roots)?.into_iter().filter(|other| other.name != profile.name) {
            if other.before()?.is_some_and(|its| its.file == before.file && its.context == name) {
                other.set_before(before)?;
            }
        }
        remove(&before.file, &name, context, &invoker)?;
    }
    remove(&invoker.kubeconfig(), &name, context, &invoker)
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
