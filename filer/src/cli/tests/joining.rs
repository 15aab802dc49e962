//! A site joins: its request, the signature, what comes back; and whose name is whose.

use super::{Desk, asked, filer, mode};
use crate::{
    admin::{
        Status,
        status::Peer,
        tests::{Remembers, served},
    },
    cli::issued,
};
use mesh::net::Identity;
use std::{path::Path, sync::Arc};
use storage::clouds::CloudSettings;

#[test]
fn a_site_joins_with_a_request_a_signature_and_an_answer() {
    let desk = Desk::new();
    let (ams, fra) = (desk.path("ams"), desk.path("fra"));
    let clouds = [
        "--cloud-a",
        &format!("dir:{}", desk.path("store-a")),
        "--cloud-b",
        "s3://files?access_key_id=id&secret_access_key_file=s3.secret",
    ];
    let first = ["init", "ams", "--dir", &ams, "--listen", "0.0.0.0:7400", "--advertise", "ams.example.org:7400"];
    assert_eq!(filer(&[&first[..], &clouds].concat()).0, 0);
    let path = desk.site("ams").config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    let (by_file, itself) = ("\nsecret_access_key_file = \"s3.secret\"\n", "\nsecret_access_key = \"hush\"\n");
    assert!(text.contains(by_file), "{text}");
    std::fs::write(&path, text.replace(by_file, itself)).unwrap();

    let (code, said) = filer(&["init", "fra", "--dir", &fra, "--join"]);
    assert!(code == 0 && said.contains("filer sign fra.csr"), "{said}");
    let (csr, pem) = (desk.path("fra/fra.csr"), desk.path("fra/fra.pem"));
    assert_eq!(mode(Path::new(&desk.path("fra/identity/filer.key"))), 0o600);
    assert_eq!(mode(Path::new(&fra)), 0o700);
    let (code, said) = filer(&["init", "fra", "--dir", &fra, "--certificate", &csr]);
    assert!(code == 2 && said.contains("is not what filer sign makes"), "{code} {said}");

    let (code, said) = filer(&["sign", &csr, "--dir", &ams]);
    assert!(code == 0 && said.contains("fra may join as filer") && said.contains("--certificate fra.pem"), "{said}");
    let bundle = std::fs::read_to_string(&pem).unwrap();
    assert!(!bundle.contains("hush") && !bundle.contains("PRIVATE KEY"), "{bundle}");
    assert!(bundle.contains("\n-----BEGIN CERTIFICATE-----\n"), "readable as PEM: {bundle}");
    assert_eq!(filer(&["sign", &csr, "--dir", &ams]).0, 3, "the answer exists");
    // The same request may be signed again, for the same filer; another key's is refused.
    let (code, said) = filer(&["sign", &csr, "--dir", &ams, "-o", &desk.path("again.pem")]);
    assert_eq!(code, 0, "{said}");
    for step in ["filer init fra --dir DIR --certificate again.pem", "filer renew --dir DIR --certificate again.pem"] {
        assert!(
            said.contains(step) && !said.contains("fra.pem"),
            "it may be either, and is where it was asked for: {said}"
        );
    }
    let ids = [&pem, &desk.path("again.pem")].map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().find(|line| line.starts_with("filer = ")).unwrap().to_string()
    });
    assert_eq!(ids[0], ids[1]);
    assert_eq!(filer(&["init", "fra", "--dir", &desk.path("thief"), "--join"]).0, 0);
    let (code, said) = filer(&["sign", &desk.path("thief/fra.csr"), "--dir", &ams]);
    assert!(code == 3 && said.contains("has a certificate already, of another key"), "{code} {said}");
    assert!(said.contains("thief/fra.csr") && said.contains("choose another name"), "{said}");
    assert_eq!(filer(&["sign", &csr, "--dir", &desk.path("nowhere")]).0, 2);

    // Someone else's answer, and an answer without the key, are refused.
    assert_eq!(filer(&["init", "lon", "--dir", &desk.path("lon"), "--join"]).0, 0);
    let (code, said) = filer(&["init", "lon", "--dir", &desk.path("lon"), "--certificate", &pem]);
    assert!(code == 3 && said.contains("it is for the filer fra, not lon"), "{code} {said}");
    let (code, said) = filer(&["init", "fra", "--dir", &desk.path("empty"), "--certificate", &pem]);
    assert!(code == 3 && said.contains("--join"), "{code} {said}");
    assert_eq!(filer(&["init", "fra", "--dir", &desk.path("other"), "--join"]).0, 0);
    let (code, said) = filer(&["init", "fra", "--dir", &desk.path("other"), "--certificate", &pem]);
    assert!(code == 3 && said.contains("is not for the key of this site"), "{code} {said}");
    for file in [&pem, &desk.path("other/identity/filer.key"), &desk.path("other/fra.csr")] {
        assert!(said.contains(file.as_str()), "{file} in {said}");
    }
    assert!(!desk.site("other").site_path().exists());

    let accept = ["init", "fra", "--dir", &fra, "--certificate", &pem, "--listen", "127.0.0.1:7401", "--nfs", "off"];
    // What is missing for good reason is not all that may be wrong with the clouds' settings.
    let (code, said) = filer(&[&accept[..], &["--set", "clouds.secondary.request_timeout=5"]].concat());
    assert!(code == 2 && said.contains("clouds.secondary.request_timeout the number 5 has no unit"), "{code} {said}");
    assert!(!said.contains("is missing") && !desk.site("fra").site_path().exists(), "{said}");
    let (code, said) = filer(&accept);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("clouds.secondary.secret_access_key is missing"), "{said}");
    let (first, joined) = (desk.site("ams").site().unwrap(), desk.site("fra").site().unwrap());
    assert_eq!((joined.cloudfs, joined.first), (first.cloudfs, false));
    assert_ne!(joined.filer, first.filer);
    assert_eq!(joined.members()[&first.filer].address, "ams.example.org:7400");
    let identity = Identity::load(&desk.site("fra").identity()).unwrap();
    assert_eq!((identity.id(), identity.name()), (joined.filer, "fra"));
    assert!(!desk.0.path().join("fra/.checking").exists());

    // The credentials are still to be given; then all is well.
    let (code, said) = filer(&["check-config", "--dir", &fra]);
    assert!(code == 2 && said.contains("line ") && said.contains("secret_access_key is missing"), "{code} {said}");
    let path = desk.site("fra").config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("access_key_id = \"id\"", "access_key_id = \"id\"\nsecret_access_key = \"hush\""),
    )
    .unwrap();
    let config = desk.site("fra").config().unwrap();
    assert_eq!(config.clouds, desk.site("ams").config().unwrap().clouds);
    assert_eq!((config.mesh.advertise.as_str(), config.nfs.listen), ("127.0.0.1:7401", None));
    assert_eq!(filer(&accept).0, 3, "nothing is overwritten");
    assert_eq!(filer(&["sign", &csr, "--dir", &fra]).0, 3, "only the first site signs");
}

/// The first site's files need not be there at another one.
#[test]
fn a_site_that_joins_may_have_its_credentials_elsewhere() {
    let desk = Desk::new();
    let (ams, fra) = (desk.path("ams"), desk.path("fra"));
    let first = "s3://files?region=eu-west-1&access_key_id_file=s3.id&secret_access_key_file=s3.secret";
    let second = "azure://account/files?access_key_file=azure.key";
    assert_eq!(filer(&["init", "ams", "--dir", &ams, "--cloud-a", first, "--cloud-b", second]).0, 0);
    assert_eq!(filer(&["init", "fra", "--dir", &fra, "--join"]).0, 0);
    assert_eq!(filer(&["sign", &desk.path("fra/fra.csr"), "--dir", &ams]).0, 0);

    let pem = desk.path("fra/fra.pem");
    let accept = ["init", "fra", "--dir", &fra, "--certificate", &pem];
    let [id, secret, sas] = ["primary.access_key_id_env=A", "primary.secret_access_key_env=B", "secondary.sas_env=C"]
        .map(|setting| format!("clouds.{setting}"));
    let another = "clouds.primary.access_key_id=id";
    let (code, said) = filer(&[&accept[..], &["--set", &id, "--set", another]].concat());
    assert!(code == 2 && said.contains("is one place too many beside access_key_id;"), "{code} {said}");
    let (code, said) = filer(&[&accept[..], &["--set", &id, "--set", &secret, "--set", &sas]].concat());
    assert!(code == 0 && said.contains("Look at the clouds' settings"), "{code} {said}");

    let clouds = desk.site("fra").config().unwrap().clouds;
    let CloudSettings::S3(s3) = &clouds.primary.settings else { panic!("S3") };
    assert_eq!((s3.access_key_id_env.as_deref(), &s3.access_key_id_file), (Some("A"), &None));
    assert_eq!((s3.secret_access_key_env.as_deref(), &s3.secret_access_key_file), (Some("B"), &None));
    let CloudSettings::Azure(azure) = &clouds.secondary.settings else { panic!("Azure") };
    assert_eq!((azure.sas_env.as_deref(), &azure.access_key_file), (Some("C"), &None));
}

#[test]
fn a_signing_that_fails_takes_nothing_and_may_be_repeated() {
    let desk = Desk::new();
    let ams = desk.path("ams");
    assert_eq!(filer(&["init", "ams", "--dir", &ams]).0, 0);
    assert_eq!(filer(&["init", "fra", "--dir", &desk.path("fra"), "--join"]).0, 0);
    let csr = desk.path("fra/fra.csr");
    for (wrong, code) in [(&["--days", "0"][..], 2), (&["--days", "99999"], 2), (&["-o", "/nowhere/at/all/fra.pem"], 1)]
    {
        assert_eq!(filer(&[&["sign", &csr, "--dir", &ams], wrong].concat()).0, code, "{wrong:?}");
    }
    assert_eq!(filer(&["sign", &csr, "--dir", &ams]).0, 0, "the name is not burnt");
}

/// A script must be able to tell a wrong command line from a filer or a disk that failed.
#[test]
fn a_file_that_is_not_there_or_something_else_is_wrong_usage() {
    let desk = Desk::new();
    let (ams, fra, nothing) = (desk.path("ams"), desk.path("fra"), desk.path("nothing.pem"));
    assert_eq!(filer(&["init", "ams", "--dir", &ams]).0, 0);
    assert_eq!(filer(&["init", "fra", "--dir", &fra, "--join"]).0, 0);
    for line in [
        &["init", "fra", "--dir", &fra, "--certificate", &nothing][..],
        &["sign", &nothing, "--dir", &ams],
        &["renew", "--dir", &ams, "--certificate", &nothing],
    ] {
        let (code, said) = filer(line);
        assert!(code == 2 && said.contains(&nothing) && said.contains("cannot be read"), "{line:?}: {code} {said}");
    }
    let (code, said) = filer(&["sign", &desk.path("ams/identity/filer.pem"), "--dir", &ams, "-o", &nothing]);
    assert!(code == 2 && said.contains("the signing request was refused"), "{code} {said}");
}

#[tokio::test]
async fn a_removed_filer_is_told_so_and_its_name_is_not_signed_again() {
    let desk = Desk::new();
    let ams = desk.path("ams");
    assert_eq!(asked(&["init", "ams", "--dir", &ams]).await.0, 0);
    for dir in ["fra", "again"] {
        assert_eq!(asked(&["init", "fra", "--dir", &desk.path(dir), "--join"]).await.0, 0);
    }
    assert_eq!(asked(&["sign", &desk.path("fra/fra.csr"), "--dir", &ams]).await.0, 0);
    let id = issued::Issued::find(&desk.site("ams"), "fra").unwrap().unwrap().filer().to_string();
    let site = Arc::new(Remembers::default());
    let (stop, serving) = served(&desk.site("ams").config().unwrap().admin.socket, site.clone());

    // While it is a member its request is a renewal, whatever is said.
    let peers = vec![Peer { id: id.clone(), ..Peer::default() }];
    *site.1.lock().unwrap() = Some(Status { peers, ..Status::default() });
    let (code, said) = asked(&["sign", &desk.path("fra/fra.csr"), "--dir", &ams, "-o", &desk.path("2.pem")]).await;
    assert!(code == 0 && said.contains("filer renew --dir DIR --certificate 2.pem"), "{code} {said}");
    assert!(!said.contains("filer init"), "{said}");

    let removed = Some("this filer was removed".to_string());
    *site.1.lock().unwrap() = Some(Status { removed, removed_filers: vec![id.clone()], ..Status::default() });
    for request in
        [&["fra/fra.csr"][..], &["fra/fra.csr", "--renew"], &["again/fra.csr"], &["again/fra.csr", "--renew"]]
    {
        let (csr, answer) = (desk.path(request[0]), desk.path("3.pem"));
        let line = [&["sign", &csr, "--dir", &ams, "-o", &answer], &request[1..]].concat();
        let (code, said) = asked(&line).await;
        assert!(code == 3 && said.contains(&format!("was used by filer {id}, which was removed")), "{code} {said}");
        assert!(said.contains("choose another name"), "{said}");
    }
    assert!(!Path::new(&desk.path("3.pem")).exists());
    let (code, said) = asked(&["status", "--dir", &ams]).await;
    assert!(code == 0 && said.starts_with("REMOVED: this filer was removed\n"), "{code} {said}");
    drop(stop);
    serving.await.unwrap();
}
