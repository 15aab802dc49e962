//! Certificates are renewed and revoked, of a site and of a filer that runs.

use super::{Desk, asked, filer, mode};
use crate::{
    admin::{
        Status,
        status::{Certificate, Peer},
        tests::{Remembers, served},
    },
    cli::issued,
    site::Renewal,
};
use mesh::net::Identity;
use std::{path::Path, sync::Arc};

#[test]
fn a_site_renews_its_certificate_with_its_key_and_with_another() {
    let desk = Desk::new();
    let (ams, fra) = (desk.path("ams"), desk.path("fra"));
    assert_eq!(filer(&["init", "ams", "--dir", &ams]).0, 0);
    assert_eq!(filer(&["init", "fra", "--dir", &fra, "--join"]).0, 0);
    assert_eq!(filer(&["sign", &desk.path("fra/fra.csr"), "--dir", &ams, "--renew"]).0, 3, "there is nothing to renew");
    assert_eq!(filer(&["sign", &desk.path("fra/fra.csr"), "--dir", &ams]).0, 0);
    let accept = ["init", "fra", "--dir", &fra, "--certificate", &desk.path("fra/fra.pem"), "--nfs", "off"];
    assert_eq!(filer(&accept).0, 0);
    let identity = || Identity::load(&desk.site("fra").identity()).unwrap();
    let key = || std::fs::read_to_string(desk.path("fra/identity/filer.key")).unwrap();
    let (first, first_key) = (identity(), key());

    let (csr, pem) = (desk.path("fra/fra-renewal.csr"), desk.path("fra/fra-renewal.pem"));
    let place = ["renew", "--dir", &fra, "--certificate", &pem];
    let mut running = Renewal::of(desk.site("fra").identity());
    for new_key in [false, true] {
        let before = (identity().serial().to_string(), key());
        let ask = if new_key { vec!["renew", "--dir", &fra, "--new-key"] } else { vec!["renew", "--dir", &fra] };
        let (code, said) = filer(&ask);
        assert!(code == 0 && said.contains("filer sign fra-renewal.csr --renew"), "{code} {said}");
        assert_eq!(filer(&ask).0, 3, "a request is under way");
        let without = desk.path(&format!("without-{new_key}.pem"));
        let (code, said) = filer(&["sign", &csr, "--dir", &ams, "-o", &without]);
        if new_key {
            assert!(code == 3 && said.contains("add --renew"), "another key is no repetition: {code} {said}");
        } else {
            assert!(
                code == 0 && said.contains("filer renew --dir DIR --certificate without-false.pem"),
                "{code} {said}"
            );
        }
        let (code, said) = filer(&["sign", &csr, "--renew", "--dir", &ams, "--days", "30"]);
        assert!(code == 0 && said.contains("filer renew --dir DIR"), "{code} {said}");
        assert_eq!((identity().serial().to_string(), key()), before, "nothing changes before it is put in place");
        assert!(running.look().is_none(), "a running filer sees nothing new");
        let (code, said) = filer(&place);
        assert!(code == 0 && said.contains("takes it into use"), "{code} {said}");
        assert_ne!(identity().serial(), before.0);
        let seen = running.look().expect("a running filer sees that they have changed").unwrap();
        assert_eq!(seen.serial(), identity().serial());
        assert!(running.look().is_none(), "once");
        assert_eq!((key() != before.1, mode(Path::new(&desk.path("fra/identity/filer.key")))), (new_key, 0o600));
        assert_eq!((identity().id(), identity().name()), (first.id(), "fra"));
        assert!(!Path::new(&csr).exists() && !Path::new(&desk.path("fra/identity/filer.key.next")).exists());
        assert!(Path::new(&pem).exists(), "what was signed may lie where it was made: it is not in the next one's way");
    }
    assert_ne!(key(), first_key);

    // What is no earlier answer for this filer is.
    assert_eq!(filer(&["renew", "--dir", &fra]).0, 0);
    let earlier = std::fs::read_to_string(&pem).unwrap();
    for other in ["precious".to_string(), earlier.replace("name = \"fra\"", "name = \"lon\"")] {
        std::fs::write(&pem, &other).unwrap();
        let (code, said) = filer(&["sign", &csr, "--renew", "--dir", &ams]);
        assert!(code == 3 && said.contains("nothing is overwritten"), "{code} {said}");
        assert_eq!(std::fs::read_to_string(&pem).unwrap(), other);
    }
    std::fs::remove_file(&csr).unwrap();
    std::fs::remove_file(&pem).unwrap();

    // A renewal that was cut off between the certificate and the key still serves, and is finished by the next one.
    assert_eq!(filer(&["renew", "--dir", &fra, "--new-key"]).0, 0);
    assert_eq!(filer(&["sign", &csr, "--renew", "--dir", &ams]).0, 0);
    let bundle: toml::Table = std::fs::read_to_string(&pem).unwrap().parse().unwrap();
    std::fs::write(desk.path("fra/identity/filer.pem"), bundle["certificate"].as_str().unwrap()).unwrap();
    let cut_off = identity().serial().to_string();
    assert_eq!(filer(&place).0, 0);
    assert_eq!(identity().serial(), cut_off);
    assert!(!Path::new(&desk.path("fra/identity/filer.key.next")).exists());

    // Another's answer is refused, and leaves everything as it was.
    std::fs::remove_file(&pem).unwrap();
    assert_eq!(filer(&["renew", "--dir", &ams]).0, 0);
    assert_eq!(filer(&["sign", &desk.path("ams/ams-renewal.csr"), "--renew", "--dir", &ams]).0, 0);
    let (code, said) = filer(&["renew", "--dir", &fra, "--certificate", &desk.path("ams/ams-renewal.pem")]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("is not for the key of this site") && said.contains("Make a request anew"), "{said}");
    assert_eq!(identity().serial(), cut_off);
    assert_eq!(filer(&["renew", "--dir", &ams, "--certificate", &desk.path("ams/ams-renewal.pem")]).0, 0);
}

#[tokio::test]
async fn a_renewal_ends_when_the_filer_serves_with_the_new_certificate() {
    let desk = Desk::new();
    let (ams, fra) = (desk.path("ams"), desk.path("fra"));
    let (csr, pem) = (desk.path("fra/fra-renewal.csr"), desk.path("fra/fra-renewal.pem"));
    assert_eq!(asked(&["init", "ams", "--dir", &ams]).await.0, 0);
    assert_eq!(asked(&["init", "fra", "--dir", &fra, "--join"]).await.0, 0);
    assert_eq!(asked(&["sign", &desk.path("fra/fra.csr"), "--dir", &ams]).await.0, 0);
    let accept = ["init", "fra", "--dir", &fra, "--certificate", &desk.path("fra/fra.pem"), "--nfs", "off"];
    assert_eq!(asked(&accept).await.0, 0);
    assert_eq!(asked(&["renew", "--dir", &fra]).await.0, 0);
    assert_eq!(asked(&["sign", &csr, "--renew", "--dir", &ams]).await.0, 0);

    let site = Arc::new(Remembers::default());
    let (stop, serving) = served(&desk.site("fra").config().unwrap().admin.socket, site.clone());
    // A mistake in the settings is in nobody's way.
    let path = desk.site("fra").config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("colour = \"red\"\n{text}")).unwrap();
    let (code, said) = asked(&["renew", "--dir", &fra, "--certificate", &pem]).await;
    assert!(code == 0 && said.contains("serves with it from now on"), "{code} {said}");
    let serial = Identity::load(&desk.site("fra").identity()).unwrap().serial().to_string();
    assert_eq!(*site.0.lock().unwrap(), [format!("use {serial}")]);
    drop(stop);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_revocation_that_takes_more_than_certificates_is_refused() {
    let desk = Desk::new();
    let ams = desk.path("ams");
    assert_eq!(asked(&["init", "ams", "--dir", &ams]).await.0, 0);
    assert_eq!(asked(&["init", "fra", "--dir", &desk.path("fra"), "--join"]).await.0, 0);
    for answer in ["one.pem", "two.pem"] {
        assert_eq!(asked(&["sign", &desk.path("fra/fra.csr"), "--dir", &ams, "-o", &desk.path(answer)]).await.0, 0);
    }
    let fra = issued::Issued::find(&desk.site("ams"), "fra").unwrap().unwrap();
    let serials: Vec<String> = fra.certificates.iter().map(|known| known.serial.clone()).collect();
    let site = Arc::new(Remembers::default());
    // Two filers, and what fra says of its certificate.
    let serves_with = |serial: &str| {
        let (voter, connected) = (true, true);
        let peer = |id: String| Peer { id, voter, connected, ..Peer::default() };
        let peers = vec![peer("1".into()), peer(fra.filer().to_string())];
        let certificate = Certificate { serial: serial.into(), ..Certificate::default() };
        *site.1.lock().unwrap() = Some(Status { peers, certificate, ..Status::default() });
    };
    let revoked = || site.0.lock().unwrap().iter().filter(|told| told.starts_with("revoke ")).count();
    let (stop, serving) = served(&desk.site("ams").config().unwrap().admin.socket, site.clone());

    let but_newest = ["revoke", "fra", "--but-newest", "--dir", &ams];
    serves_with(&serials[0]);
    let (code, said) = asked(&but_newest).await;
    assert!(code == 3 && said.contains(&format!("still serves with the certificate {}", serials[0])), "{code} {said}");
    serves_with("");
    let (code, said) = asked(&but_newest).await;
    assert!(
        code == 3 && said.contains("does not say with which certificate it serves (it is silent)"),
        "{code} {said}"
    );
    for line in [&["revoke", "fra", "--dir", &ams][..], &[&but_newest[..], &["--cut-off"]].concat()] {
        let (code, said) = asked(line).await;
        assert!(code == 3 && said.contains("reaches 1 of 2 filers that vote"), "{line:?}: {code} {said}");
        assert!(said.contains("filer peers remove fra") && said.contains("--lose-majority"), "{said}");
    }
    // One that is not reached now may be back any moment.
    let away = |status: &mut Status| status.peers[1].connected = false;
    away(site.1.lock().unwrap().as_mut().unwrap());
    assert_eq!(asked(&but_newest).await.0, 3);
    assert_eq!(asked(&["revoke", "fra", "--dir", &ams]).await.0, 3);
    assert_eq!(revoked(), 0);
    serves_with(&serials[1]);
    let (code, said) = asked(&but_newest).await;
    assert!(code == 0 && said.contains(&serials[0]) && !said.contains(&serials[1]), "{code} {said}");
    assert_eq!(revoked(), 1);
    assert_eq!(asked(&["revoke", "fra", "--dir", &ams, "--lose-majority"]).await.0, 0);
    assert_eq!(revoked(), 3);
    drop(stop);
    serving.await.unwrap();
}
