//! `[nfs]`: the door for NFS clients, and who may use it.

use super::{
    form::Form,
    kinds::{AddressOrOff, Bytes, Choice, Flag, Text, count},
};
use crate::nfs::{Export, Network, Squash};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// The export that there is by default, and what an export's settings are where the file does not give them: for
/// clients on this machine alone.
pub(super) fn local_export() -> Export {
    let local = ["127.0.0.0/8", "::1/128"].map(|text| text.parse().expect("these are networks"));
    Export { networks: local.to_vec(), ..Export::new("/") }
}

fn export(export: &mut Export, form: &mut Form<'_, '_>) {
    form.need("path", "The directory of the CloudFS, with all below it.", Text(absolute), &mut export.path);
    let mut networks: Vec<String> = export.networks.iter().map(Network::to_string).collect();
    form.list(
        "networks",
        "Clients outside these networks are refused, such as [\"10.1.0.0/16\", \"fd00::/8\"]. Needed where listen is open to\nother machines.",
        Text(network),
        &mut networks,
    );
    export.networks = networks.iter().filter_map(|text| text.parse().ok()).collect();
    form.set(
        "squash",
        "\"root\": root becomes the anonymous user; \"all\": everybody does; \"none\": nobody does.",
        Choice(&[("none", Squash::None), ("root", Squash::Root), ("all", Squash::All)]),
        &mut export.squash,
    );
    form.set("anonymous_uid", "The anonymous user.", count(0..=u64::from(u32::MAX)), &mut export.anonymous_uid);
    form.set("anonymous_gid", "", count(0..=u64::from(u32::MAX)), &mut export.anonymous_gid);
    form.set("read_only", "Refuses every change.", Flag, &mut export.read_only);
}

fn network(text: &str) -> Result<(), String> {
    let parsed = text.parse::<Network>().map(drop);
    parsed.map_err(|_| format!("\"{text}\" is no network; write such as \"10.1.0.0/16\", \"fd00::/8\" or one address"))
}

fn absolute(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("\"{path}\" is not a path within the CloudFS; begin it with /"));
    }
    if path != "/" && path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!(
            "\"{path}\" has an empty, . or .. part; write each directory's name once, with no / at the end"
        ));
    }
    Ok(())
}

/// `[nfs]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NfsSettings {
    /// For MOUNT and NFS, version 3.
    pub listen: Option<SocketAddr>,
    /// For the port mapper, besides.
    pub portmap_listen: Option<SocketAddr>,
    pub connections_max: u32,
    pub read_bytes_in_flight_max: u64,
    pub write_bytes_in_flight_max: u64,
    pub metadata_bytes_in_flight_max: u64,
    pub connection_bytes_in_flight_max: u64,
    pub exports: Vec<Export>,
}

impl Default for NfsSettings {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 2049))),
            portmap_listen: None,
            connections_max: 1_024,
            read_bytes_in_flight_max: 96 * MIB,
            write_bytes_in_flight_max: 64 * MIB,
            metadata_bytes_in_flight_max: 8 * MIB,
            connection_bytes_in_flight_max: 32 * MIB,
            exports: vec![local_export()],
        }
    }
}

impl NfsSettings {
    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc = "Serves NFS version 3, its MOUNT protocol included, or \"off\".";
        form.set("listen", doc, AddressOrOff, &mut self.listen);
        let doc = "Answers there too, for clients that ask a port mapper where NFS is, such as \"0.0.0.0:111\", or \"off\". It needs\nthe right to use that port, and no other port mapper on this machine.";
        form.set("portmap_listen", doc, AddressOrOff, &mut self.portmap_listen);
        if form.reads() && self.portmap_listen.is_some() && self.listen.is_none() {
            form.problem("portmap_listen", "needs nfs.listen: there is nothing to tell of; set it to \"off\" too");
        }
        form.set("connections_max", "Clients' connections at once.", count(1..=1 << 16), &mut self.connections_max);
        let doc = "Memory for reads that are under way, for all clients. Without room a call waits, then its client asks again.";
        form.set("read_bytes_in_flight_max", doc, Bytes(4 * MIB..=TIB), &mut self.read_bytes_in_flight_max);
        let doc = "Memory for writes that are under way, for all clients.";
        form.set("write_bytes_in_flight_max", doc, Bytes(4 * MIB..=TIB), &mut self.write_bytes_in_flight_max);
        let doc = "Memory for changes of names and attributes that are under way, and as much again for looks at them.";
        form.set("metadata_bytes_in_flight_max", doc, Bytes(MIB..=TIB), &mut self.metadata_bytes_in_flight_max);
        let doc = "What one connection may have of each.";
        form.set("connection_bytes_in_flight_max", doc, Bytes(4 * MIB..=TIB), &mut self.connection_bytes_in_flight_max);
        let doc = "A directory that clients may mount; repeat the section for more. Without any, \"/\" is exported.";
        form.sections("exports", doc, &mut self.exports, local_export, export);
        if form.reads() && form.has("exports") && self.exports.is_empty() {
            form.problem(
                "exports",
                "is empty; write a [[nfs.exports]] section, or listen = \"off\" to serve no clients",
            );
        }
    }
}
