//! Commands that ask the filer, and how they say what it answers.

use super::{Desk, asked};
use crate::admin::{
    Status,
    tests::{Remembers, served, troubled},
};
use std::sync::Arc;

#[tokio::test]
async fn the_commands_talk_to_the_filer_and_say_how_it_went() {
    let desk = Desk::new();
    let ams = desk.path("ams");
    assert_eq!(asked(&["init", "ams", "--dir", &ams]).await.0, 0);
    let (code, said) = asked(&["status", "--dir", &ams]).await;
    assert!(code == 4 && said.contains("filer serve"), "{code} {said}");
    assert_eq!(asked(&["status", "--dir", &desk.path("nowhere")]).await.0, 2);

    let site = Arc::new(Remembers::default());
    let socket = desk.site("ams").config().unwrap().admin.socket;
    let (stop, serving) = served(&socket, site.clone());
    let (code, said) = asked(&["status", "--dir", &ams]).await;
    assert!(code == 0 && said.contains("NO: aws is resyncing"), "{code} {said}");
    let (code, said) = asked(&["status", "--json", "--socket", &socket.to_string_lossy()]).await;
    assert_eq!((code, serde_json::from_str::<Status>(&said).unwrap()), (0, troubled()));
    let (code, said) = asked(&["cloud", "list", "--dir", &ams]).await;
    assert!(code == 0 && said.contains("resyncing, FAILING") && !said.contains("FILERS"), "{said}");
    assert!(said.contains("3 of 160 failures in a row") && said.contains("filer cloud failback"), "{said}");
    let (code, said) = asked(&["cloud", "list", "--json", "--dir", &ams]).await;
    let clouds: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, 0);
    assert_eq!(clouds[0]["state"], "resyncing");
    assert_eq!(clouds[0]["failing"]["failures"], 3);
    assert_eq!(clouds[1]["held_by_operator"], true);
    let (code, said) = asked(&["peers", "--dir", &ams]).await;
    assert!(code == 0 && said.contains("fra:7400"), "{said}");
    for part in ["CERTIFICATES\n", "4e02", "REMOVED FILERS\n"] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
    let (code, said) = asked(&["peers", "--json", "--dir", &ams]).await;
    let peers: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &peers["filers"][1]["name"]), (0, &serde_json::json!("fra")));
    assert_eq!(peers["filers"][1]["certificate"]["serial"], "4e02");
    assert_eq!(peers["removed"], serde_json::json!(["0000002c"]));
    assert_eq!(peers["revoked"][0]["serial"], "4f00");
    assert_eq!(asked(&["cloud", "failback", "--dir", &ams]).await, (0, "aws is active now\n".into()));
    let (code, said) = asked(&["cloud", "failover", "aws", "--dir", &ams]).await;
    assert!(code == 3 && said.contains("aws misses 42 pieces"), "{code} {said}");
    let (code, said) = asked(&["cloud", "failover", "azure", "--dir", &ams]).await;
    assert!(code == 3 && said.contains("active already"), "{code} {said}");
    let (code, said) = asked(&["cloud", "failover", "gcs", "--dir", &ams]).await;
    assert!(code == 2 && said.contains("the clouds are aws (a) and azure (b)"), "{code} {said}");
    let (code, said) = asked(&["peers", "remove", "lon", "--dir", &ams]).await;
    assert!(code == 2 && said.contains("no filer is called lon"), "{code} {said}");

    // A mistake in the settings is no reason not to be told how the filer is.
    let path = desk.site("ams").config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("colour = \"red\"\n{text}")).unwrap();
    assert_eq!(asked(&["check-config", "--dir", &ams]).await.0, 2);
    for line in [&["status"][..], &["cloud", "list"], &["peers"]] {
        let (code, said) = asked(&[line, &["--dir", &ams]].concat()).await;
        assert_eq!(code, 0, "{line:?}: {said}");
    }
    std::fs::write(&path, text).unwrap();

    // What was signed is revoked, with the authority's record; a filer that has not joined too.
    assert_eq!(asked(&["init", "old", "--dir", &desk.path("old"), "--join"]).await.0, 0);
    assert_eq!(asked(&["sign", &desk.path("old/old.csr"), "--dir", &ams]).await.0, 0);
    let (code, said) = asked(&["revoke", "old", "--dir", &ams]).await;
    assert!(code == 0 && said.contains("revoked at every filer"), "{code} {said}");
    let told = site.0.lock().unwrap().iter().filter(|told| told.starts_with("revoke ")).cloned().collect::<Vec<_>>();
    let serial = told[0].rsplit(' ').next().unwrap().to_string();
    assert!(told.len() == 1 && told[0].contains(" old ") && said.contains(&serial), "{told:?} {said}");
    let (code, said) = asked(&["sign", &desk.path("old/old.csr"), "--dir", &ams, "-o", &desk.path("more.pem")]).await;
    assert!(code == 3 && said.contains("was revoked"), "{code} {said}");
    assert_eq!(asked(&["revoke", "nobody", "--dir", &ams]).await.0, 2);
    let (code, said) = asked(&["revoke", "ams", "--dir", &ams]).await;
    assert!(code == 3 && said.contains("--but-newest"), "{code} {said}");
    let (code, said) = asked(&["revoke", "ams", "--but-newest", "--dir", &ams]).await;
    assert!(code == 0 && said.contains("no certificate to be revoked"), "{code} {said}");
    let (code, said) = asked(&["peers", "--dir", &ams]).await;
    assert!(code == 0 && said.contains("REVOKED CERTIFICATES"), "{said}");

    // A signature while the filer runs names the peers that it knows.
    assert_eq!(asked(&["init", "lon", "--dir", &desk.path("lon"), "--join"]).await.0, 0);
    assert_eq!(asked(&["sign", &desk.path("lon/lon.csr"), "--dir", &ams]).await.0, 0);
    let bundle = std::fs::read_to_string(desk.path("lon/lon.pem")).unwrap();
    assert!(bundle.contains("\"fra:7400\"") && bundle.contains("\"127.0.0.1:7400\""), "{bundle}");
    drop(stop);
    serving.await.unwrap();
}
