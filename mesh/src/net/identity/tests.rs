use super::*;
use crate::clock::Clock;

/// A wall clock that stands still, at a second of the Unix epoch.
pub(in crate::net) struct Stopped(pub u64);

impl Clock for Stopped {
    fn wall_ns(&self) -> u64 {
        self.0 * 1_000_000_000
    }
}

const Y2026_S: u64 = 1_767_225_600;

fn folder_of(ca: &MeshCa, id: u64, name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request = SigningRequest::create(name).expect("request");
    request.save(folder.path()).expect("saved");
    let cert = ca.sign(&request.csr_pem, FilerId(id), 365, &Stopped(Y2026_S)).expect("signed");
    std::fs::write(folder.path().join(CERTIFICATE_FILE), cert).expect("written");
    std::fs::write(folder.path().join(CA_CERTIFICATE_FILE), ca.certificate_pem()).expect("written");
    folder
}

#[test]
fn an_identity_survives_its_files() {
    let made = MeshCa::create("prod-1", &Stopped(Y2026_S)).expect("ca");
    let ca_folder = tempfile::tempdir().expect("a temporary folder");
    made.save(ca_folder.path()).expect("saved");
    let ca = MeshCa::load(ca_folder.path()).expect("loaded");
    assert_eq!(ca.cloudfs(), "prod-1");

    let folder = folder_of(&ca, 0x2a, "ams");
    let identity = Identity::load(folder.path()).expect("identity");
    assert_eq!((identity.id(), identity.name(), identity.cloudfs()), (FilerId(0x2a), "ams", "prod-1"));
    assert_eq!(identity.not_after_s() as u64, Y2026_S + 365 * 86_400);
    assert!(Identity::load(folder_of(&made, 7, "ber").path()).is_ok(), "the authority before it was saved");

    #[cfg(unix)]
    for key in [folder.path().join(KEY_FILE), ca_folder.path().join(CA_KEY_FILE)] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(key).expect("there").permissions().mode() & 0o777, 0o600);
    }
    let again = made.save(ca_folder.path()).expect_err("an authority is never overwritten").to_string();
    assert!(again.contains("ca.key") && again.contains("move it away"), "{again}");
}

#[test]
fn a_renewal_with_a_new_key_is_whole_at_every_moment() {
    let ca = MeshCa::create("prod", &Stopped(Y2026_S)).expect("ca");
    let folder = folder_of(&ca, 1, "ams");
    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).expect("written");
    let serial = || Identity::load(folder.path()).expect("an identity").serial().to_string();
    let before = serial();
    let next = SigningRequest::create("ams").expect("request");
    write(NEXT_KEY_FILE, &next.key_pem);
    assert_eq!(serial(), before, "a key without its certificate changes nothing");
    Identity::settle(folder.path()).expect("harmless");
    assert!(folder.path().join(NEXT_KEY_FILE).exists());
    write(CERTIFICATE_FILE, &ca.sign(&next.csr_pem, FilerId(1), 365, &Stopped(Y2026_S)).expect("signed"));
    let renewed = serial();
    assert_ne!(renewed, before);
    Identity::settle(folder.path()).expect("finished");
    assert!(!folder.path().join(NEXT_KEY_FILE).exists());
    assert_eq!(serial(), renewed);

    // With the same key it is another certificate too.
    let key = std::fs::read_to_string(folder.path().join(KEY_FILE)).expect("there");
    let again = SigningRequest::of_key("ams", &key).expect("request");
    write(CERTIFICATE_FILE, &ca.sign(&again.csr_pem, FilerId(1), 365, &Stopped(Y2026_S)).expect("signed"));
    assert_ne!(serial(), renewed);
    assert!(SigningRequest::of_key("ams", "garbage").is_err());
}

#[test]
fn what_does_not_fit_is_named() {
    let ca = MeshCa::create("prod", &Stopped(Y2026_S)).expect("ca");
    let other = MeshCa::create("other", &Stopped(Y2026_S)).expect("ca");
    let error = |folder: &tempfile::TempDir| Identity::load(folder.path()).expect_err("refused").to_string();

    let folder = folder_of(&ca, 1, "ams");
    std::fs::write(folder.path().join(CA_CERTIFICATE_FILE), other.certificate_pem()).expect("written");
    let said = error(&folder);
    assert!(said.contains("filer.pem") && said.contains("CloudFS prod") && said.contains("CloudFS other"), "{said}");

    let folder = folder_of(&ca, 1, "ams");
    std::fs::write(folder.path().join(KEY_FILE), SigningRequest::create("ams").expect("request").key_pem)
        .expect("written");
    let said = error(&folder);
    assert!(said.contains("filer.key is not the key of") && said.contains("filer.pem: they belong to"), "{said}");

    let folder = folder_of(&ca, 1, "ams");
    std::fs::remove_file(folder.path().join(CERTIFICATE_FILE)).expect("removed");
    let said = error(&folder);
    assert!(said.contains("filer.pem cannot be read") && said.contains("Copy"), "{said}");

    let folder = folder_of(&ca, 1, "ams");
    std::fs::write(folder.path().join(CA_CERTIFICATE_FILE), "garbage").expect("written");
    assert!(error(&folder).contains("ca.pem does not fit: it has no certificate"), "{}", error(&folder));

    let folder = folder_of(&ca, 1, "ams");
    std::fs::copy(folder.path().join(CERTIFICATE_FILE), folder.path().join(CA_CERTIFICATE_FILE)).expect("copied");
    assert!(error(&folder).contains("not an authority's certificate"), "{}", error(&folder));
}

#[test]
fn foreign_requests_and_names_are_refused() {
    let clock = Stopped(Y2026_S);
    let ca = MeshCa::create("prod", &clock).expect("ca");
    let request = SigningRequest::create("ams").expect("request");
    assert!(matches!(ca.sign("garbage", FilerId(1), 365, &clock), Err(IdentityError::Request { .. })));
    assert!(matches!(ca.sign(&request.csr_pem, FilerId(1), 0, &clock), Err(IdentityError::Validity { .. })));
    for name in ["", "a b", "x\n", &"x".repeat(64), "ä"] {
        assert!(matches!(SigningRequest::create(name), Err(IdentityError::Name { .. })), "{name:?}");
        assert!(matches!(MeshCa::create(name, &clock), Err(IdentityError::CloudFs { .. })), "{name:?}");
    }

    // A request that asks to become an authority and another filer gets neither.
    let key = rcgen::KeyPair::generate().expect("key");
    let mut greedy = rcgen::CertificateParams::new(vec![names::dns_name(FilerId(9))]).expect("params");
    greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    greedy.distinguished_name = rcgen::DistinguishedName::new();
    greedy.distinguished_name.push(rcgen::DnType::CommonName, "greedy");
    let csr = greedy.serialize_request(&key).expect("request").pem().expect("pem");
    let cert = files::certificate(&ca.sign(&csr, FilerId(1), 365, &clock).expect("signed")).expect("certificate");
    assert_eq!(peer_name(&cert), Ok(PeerName { id: FilerId(1), name: "greedy".into() }));
    assert_eq!(cloudfs_of(&cert), Err("it is not an authority's certificate".into()));
}

/// An identity that trusts `trusting`'s authority and shows `showing`'s certificate: what an intruder can make.
pub(in crate::net) fn intruder(trusting: &Identity, showing: &Identity) -> Identity {
    Identity { ca: trusting.ca.clone(), cloudfs: trusting.cloudfs.clone(), ..showing.clone() }
}

/// The identity of filer `id`, signed by `ca` as of `clock`, for `days`.
pub(in crate::net) fn identity(ca: &MeshCa, id: u64, name: &str, days: u32, clock: &dyn Clock) -> Identity {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let request = SigningRequest::create(name).expect("request");
    request.save(folder.path()).expect("saved");
    let cert = ca.sign(&request.csr_pem, FilerId(id), days, clock).expect("signed");
    std::fs::write(folder.path().join(CERTIFICATE_FILE), cert).expect("written");
    std::fs::write(folder.path().join(CA_CERTIFICATE_FILE), ca.certificate_pem()).expect("written");
    Identity::load(folder.path()).expect("identity")
}
