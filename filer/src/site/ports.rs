//! Whether the addresses that the settings name can be listened on here, before anything else is begun.
//!
//! They are tried all at once: who starts a second filer on a host hears of every port that it must change, with its
//! setting, and not of one after the other.

#![expect(clippy::disallowed_methods, reason = "the ports are this machine's")]

use crate::config::Config;
use std::{
    io::{Error, ErrorKind},
    net::{SocketAddr, TcpListener, UdpSocket},
};

/// Every setting whose address cannot be listened on now, with why and what to do, a sentence each.
pub(crate) fn unavailable(config: &Config) -> Vec<String> {
    refused(config).into_iter().map(|(_, words)| words).collect()
}

/// Those of them that are so whoever tries: who makes a site need not be the user that serves it.
pub(crate) fn unavailable_to_all(config: &Config) -> Vec<String> {
    to_all(refused(config))
}

fn to_all(refused: Vec<(ErrorKind, String)>) -> Vec<String> {
    refused.into_iter().filter(|(kind, _)| *kind != ErrorKind::PermissionDenied).map(|(_, words)| words).collect()
}

fn refused(config: &Config) -> Vec<(ErrorKind, String)> {
    let told = |setting: &str, address: SocketAddr, error: Error| (error.kind(), words(setting, address, &error));
    let listen = config.mesh.listen;
    let mesh = UdpSocket::bind(listen).err().map(|error| told("mesh.listen", listen, error));
    let tcp = [
        ("nfs.listen", config.nfs.listen),
        ("nfs.portmap_listen", config.nfs.portmap_listen.filter(|_| config.nfs.listen.is_some())),
        ("admin.listen", config.admin.listen),
        ("metrics.listen", config.metrics.listen),
    ];
    let refused = |(setting, address): (&str, Option<SocketAddr>)| {
        let address = address?;
        TcpListener::bind(address).err().map(|error| told(setting, address, error))
    };
    mesh.into_iter().chain(tcp.into_iter().filter_map(refused)).collect()
}

fn words(setting: &str, address: SocketAddr, error: &Error) -> String {
    let also = if setting == "mesh.listen" { " (in mesh.advertise too)" } else { "" };
    let what = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "is in use: another program of this host, perhaps another filer, listens there. Stop that one, or set another port{also}"
        ),
        ErrorKind::AddrNotAvailable if setting == "admin.listen" => {
            // It takes no other one than a loopback address.
            format!("is no address of this host. Set 127.0.0.1:{}", address.port())
        }
        ErrorKind::AddrNotAvailable => "is no address of this host. Set one that it has, or 0.0.0.0 for all".into(),
        ErrorKind::PermissionDenied => format!(
            "is not allowed: ports below 1024 need a right that this user lacks (CAP_NET_BIND_SERVICE). Give it, or set another port{also}"
        ),
        _ => format!("cannot be listened on ({error}). Set another address or port{also}"),
    };
    format!("{setting} = \"{address}\" {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_address_that_is_taken_is_told_with_its_setting_and_what_to_do() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config::first("ams", Path::new("/var/lib/filer"));
        (config.mesh.listen, config.nfs.listen, config.metrics.listen) = (any, Some(any), None);
        assert_eq!(unavailable(&config), Vec::<String>::new());
        let (udp, tcp) = (UdpSocket::bind(any).unwrap(), TcpListener::bind(any).unwrap());
        config.mesh.listen = udp.local_addr().unwrap();
        (config.nfs.listen, config.metrics.listen) = (Some(tcp.local_addr().unwrap()), Some(any));
        let told = unavailable(&config);
        let [mesh, nfs] = &told[..] else { panic!("{told:?}") };
        let begins = |text: &str, setting: &str, address: SocketAddr| {
            text.starts_with(&format!("{setting} = \"{address}\" is in use")) && text.contains("set another port")
        };
        assert!(begins(mesh, "mesh.listen", config.mesh.listen) && mesh.contains("mesh.advertise"), "{mesh}");
        assert!(begins(nfs, "nfs.listen", tcp.local_addr().unwrap()) && !nfs.contains("mesh.advertise"), "{nfs}");
        drop((udp, tcp));
        assert_eq!(unavailable(&config), Vec::<String>::new(), "the look itself holds nothing");
    }

    #[test]
    fn what_else_may_be_wrong_with_an_address_has_its_own_words() {
        let address = SocketAddr::from(([0, 0, 0, 0], 111));
        for (kind, part) in [
            (ErrorKind::AddrNotAvailable, "is no address of this host"),
            (ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (ErrorKind::OutOfMemory, "cannot be listened on"),
        ] {
            let text = words("nfs.portmap_listen", address, &Error::from(kind));
            assert!(text.starts_with("nfs.portmap_listen = \"0.0.0.0:111\" ") && text.contains(part), "{text}");
        }
        let absent = Error::from(ErrorKind::AddrNotAvailable);
        assert!(words("nfs.listen", address, &absent).ends_with(" Set one that it has, or 0.0.0.0 for all"));
        let text = words("admin.listen", SocketAddr::from(([127, 0, 0, 9], 7481)), &absent);
        assert!(text.ends_with(" is no address of this host. Set 127.0.0.1:7481"), "{text}");
    }

    #[test]
    fn what_one_user_may_not_do_is_in_nobody_elses_way() {
        let [nfs, metrics] = ["nfs", "metrics"].map(String::from);
        let refused = vec![(ErrorKind::PermissionDenied, nfs), (ErrorKind::AddrInUse, metrics)];
        assert_eq!(to_all(refused), ["metrics"]);
    }
}
