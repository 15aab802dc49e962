//! The commands, from their words to the files and answers they leave.

use super::*;
use crate::{
    admin::{
        status::{Certificate, Peer},
        tests::{Remembers, served, troubled},
    },
    site::Renewal,
};
use mesh::net::Identity;
use std::{os::unix::fs::PermissionsExt, sync::Arc};
use storage::clouds::CloudSettings;

/// Runs a command line; gives its exit code and what it said.
fn filer(line: &[&str]) -> (u8, String) {
    let mut out = vec![];
    let cli = match Cli::try_parse_from([&["filer"], line].concat()) {
        Ok(cli) => cli,
        Err(e) => return (e.exit_code() as u8, e.to_string()),
    };
    let done = run(cli.command, &mut out);
    let text = String::from_utf8(out).unwrap();
    match done {
        Ok(()) => (0, text),
        Err(e) => (e.exit_code(), format!("{text}{}", chain(&e))),
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

/// A temporary directory, and paths in it as text.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn site(&self, name: &str) -> SiteDir {
        SiteDir::new(&self.0.path().join(name)).unwrap()
    }
}

#[test]
fn the_commands_are_well_formed_and_every_help_has_examples() {
    fn check(command: &mut clap::Command, name: &str) {
        let help = command.render_long_help().to_string();
        let inner: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_string()).collect();
        assert!(help.contains("Examples:\n"), "{name}: {help}");
        for sub in inner.iter().filter(|sub| *sub != "help") {
            check(command.find_subcommand_mut(sub).unwrap(), &format!("{name} {sub}"));
        }
    }
    let mut command = Cli::command();
    command.clone().debug_assert();
    command.build();
    check(&mut command, "filer");
    let help = command.render_long_help().to_string();
    assert!(help.contains("3  refused by the rules") && help.contains("5  most filers cannot be reached"), "{help}");
}

#[test]
fn command_lines_are_read() {
    let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
    assert!(matches!(parse("filer status --watch --json"), Ok(Command::Status(Look { watch: true, .. }))));
    assert!(matches!(parse("filer peers"), Ok(Command::Peers { command: None, .. })));
    assert!(matches!(
        parse("filer peers remove fra --dir /x"),
        Ok(Command::Peers { command: Some(PeersCommand::Remove { name, .. }), .. }) if name == "fra"
    ));
    assert!(matches!(
        parse("filer peers keep fra"),
        Ok(Command::Peers { command: Some(PeersCommand::Keep { name, .. }), .. }) if name == "fra"
    ));
    assert!(matches!(
        parse("filer cloud failover azure --socket /s"),
        Ok(Command::Cloud { command: CloudCommand::Failover { cloud, .. } }) if cloud == "azure"
    ));
    let serve = parse("filer serve --dir /x --config /y/filer.toml");
    let (dir, config) = (Some("/x".into()), Some("/y/filer.toml".into()));
    assert!(matches!(serve, Ok(Command::Serve(serve)) if (serve.dir.clone(), serve.config.clone()) == (dir, config)));
    for wrong in [
        "filer",
        "filer fly",
        "filer init ams",
        "filer init ams --dir d --cloud-a dir:/x",
        "filer init ams --dir d --join --certificate x.pem",
        "filer init ams --dir d --join --listen 127.0.0.1:1",
        "filer init ams --dir d --listen here",
        "filer completions tcl",
        "filer revoke fra --cut-off",
        "filer cloud",
        "filer cloud failover",
        "filer cloud failover ",
        "filer cloud failback azure",
    ] {
        assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
    }
    assert_eq!(filer(&["version"]), (0, format!("filer {}\n", env!("CARGO_PKG_VERSION"))));
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = filer(&["completions", shell]);
        assert!(code == 0 && script.contains("check-config"), "{shell}");
    }
}

/// Wrong settings keep the service down, and nothing else does.
#[test]
fn the_unit_for_systemd_says_what_the_program_takes() {
    let unit = include_str!("../../filer.service");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let line = value("ExecStart").and_then(|line| line.strip_prefix("/usr/local/bin/")).unwrap();
    let Ok(Command::Serve(serve)) = Cli::try_parse_from(line.split(' ')).map(|cli| cli.command) else {
        panic!("{line}")
    };
    let state = Path::new("/var/lib").join(value("StateDirectory").unwrap());
    assert_eq!((serve.dir, serve.config), (Some(state), None));
    // A directory that is not mounted yet is a wrong setting to the program: it must be tried again.
    assert_eq!((value("Restart"), value("RestartPreventExitStatus")), (Some("on-failure"), None));
}

#[test]
fn the_first_site_has_all_it_needs_and_is_never_overwritten() {
    let desk = Desk::new();
    let dir = desk.site("ams");
    let (code, said) = filer(&[
        "init",
        "ams",
        "--dir",
        &desk.path("ams"),
        "--set",
        "segments.seal_after=250 ms",
        "--set",
        "health.failures_to_trip=5",
        "--metrics",
        "off",
    ]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("filer serve --dir"), "{said}");

    let site = dir.site().unwrap();
    assert!(site.first && site.cloudfs != 0 && site.peers.is_empty());
    assert!((1..=u64::from(u32::MAX)).contains(&site.filer.0));
    let identity = Identity::load(&dir.identity()).unwrap();
    assert_eq!((identity.id(), identity.name(), identity.cloudfs()), (site.filer, "ams", site.cloudfs_text().as_str()));
    let (config, _) = site_of(&Serve { dir: None, config: Some(dir.config_path()) }).unwrap();
    assert_eq!((config.segments.seal_after_ms, config.health.failures_to_trip, config.metrics.listen), (250, 5, None));
    for entry in [&config.clouds.primary, &config.clouds.secondary] {
        let CloudSettings::Directory(directory) = &entry.settings else { panic!("a directory") };
        assert_eq!(mode(&directory.path), 0o700);
    }
    for folder in [dir.root(), &dir.identity(), &dir.authority(), &config.data_dir] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    for file in [dir.config_path(), dir.site_path(), dir.identity().join("filer.key"), dir.authority().join("ca.key")] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }

    let before = std::fs::read_to_string(dir.config_path()).unwrap();
    assert!(
        before.contains("\nseal_after = \"250 ms\"\n") && before.contains("\n#bytes_max = \"8 MiB\"\n"),
        "{before}"
    );
    for line in [&["init", "ams", "--dir"][..], &["init", "lon", "--join", "--dir"]] {
        let (code, said) = filer(&[line, &[&desk.path("ams")]].concat());
        assert!(code == 3 && said.contains("nothing is overwritten"), "{code} {said}");
    }
    assert_eq!(std::fs::read_to_string(dir.config_path()).unwrap(), before);
    let (code, said) = filer(&["check-config", "--dir", &desk.path("ams")]);
    assert!(code == 0 && said.contains("is good: filer ams, clouds a"), "{code} {said}");
}

#[test]
fn wrong_settings_write_nothing() {
    let desk = Desk::new();
    let d = desk.path("x");
    for (line, part) in [
        (&["init", "a/b", "--dir", &d][..], "cannot name a filer"),
        (&["init", "ams", "--dir", &d, "--set", "segments.seal_after=1"], "has no unit"),
        (&["init", "ams", "--dir", &d, "--set", "segments.seal_afer=1 s"], "did you mean seal_after?"),
        (&["init", "ams", "--dir", &d, "--set", "seal_after"], "has no ="),
        (&["init", "ams", "--dir", &d, "--set", "name=lon"], "a site has one name"),
        (&["init", "ams", "--dir", &d, "--set", "name.x=1"], "name is a setting and no section"),
        (&["init", "ams", "--dir", &d, "--listen", "0.0.0.0:7400"], "mesh.advertise is missing"),
        (&["init", "ams", "--dir", &d, "--cloud-a", "dir:/c", "--cloud-b", "dir:/c"], "one failure would take both"),
        (&["init", "ams", "--dir", &d, "--cloud-a", "ftp://x", "--cloud-b", "dir:/c"], "is of no known kind"),
        (&["init", "ams", "--dir", &d, "--cloud-a", "azure://acc", "--cloud-b", "dir:/c"], "names no container"),
        (&["init", "ams", "--dir", &d, "--cloud-a", "s3://files", "--cloud-b", "dir:/c"], "has no credentials"),
        (
            &["init", "ams", "--dir", &d, "--cloud-a", "s3://My Files?machine_role=true", "--cloud-b", "dir:/c"],
            "clouds.primary.bucket \"My Files\" has a sign or a space that no name has",
        ),
        (
            &["init", "ams", "--dir", &d, "--cloud-a", "dir:/c", "--cloud-b", "azure://acc/Files?machine_role=true"],
            "clouds.secondary.container \"Files\" cannot name a container; use 3 to 63 lower-case letters",
        ),
    ] {
        let (code, said) = filer(line);
        assert!(code == 2 && said.contains(part), "{line:?}: {code} {said}");
        assert!(!said.contains("filer.toml"), "there is none yet: {said}");
        assert!(!Path::new(&d).exists(), "{line:?}");
    }
}

/// Whoever lists the processes of a machine reads their command lines, and shells keep them.
#[test]
fn a_secret_in_the_place_of_a_cloud_is_refused_and_not_repeated() {
    let desk = Desk::new();
    let d = desk.path("x");
    for (cloud, part, advice) in [
        ("s3://AKIA:hush@files/prefix", "user:password@ before its place", "secret_access_key_env=NAME"),
        ("s3://AKIA:hush/and@files", "user:password@ before its place", "secret_access_key_env=NAME"),
        (
            "s3://files?access_key_id=id&secret_access_key=hush",
            "secret_access_key=.. behind",
            "secret_access_key_env=NAME",
        ),
        ("s3://files?region=x&session_token=hush", "session_token=.. behind", "secret_access_key_env=NAME"),
        (
            "s3://files?endpoint=https%3A%2F%2Fid%3Ahush%40host",
            "user:password@ in endpoint",
            "secret_access_key_env=NAME",
        ),
        ("azure://account/files?sv=2024&sig=hush", "sig=.. behind", "access_key_env=NAME (or sas_env=NAME)"),
        ("azure://account/files?sas=hush", "sas=.. behind", "access_key_env=NAME (or sas_env=NAME)"),
        ("gs://files?key=hush", "key=.. behind", "service_account_path=FILE"),
        ("https://id:hush@host/files", "user:password@ before its place", "environment variables"),
        ("AKIA:hush@files", "user:password@ before its place", "environment variables"),
    ] {
        for (flag, other) in [("--cloud-a", "--cloud-b"), ("--cloud-b", "--cloud-a")] {
            let (code, said) = filer(&["init", "ams", "--dir", &d, flag, cloud, other, "dir:/c"]);
            assert!(code == 2 && said.contains(flag) && said.contains(part) && said.contains(advice), "{code} {said}");
            assert!(!said.contains("hush") && !Path::new(&d).exists(), "{said}");
        }
    }
}

#[test]
fn a_secret_among_settings_of_the_command_line_is_refused_and_not_repeated() {
    let desk = Desk::new();
    let d = desk.path("x");
    for (set, secret) in [
        ("clouds.primary.secret_access_key=hush", "clouds.primary.secret_access_key"),
        ("clouds.primary.session_token = hush", "clouds.primary.session_token"),
        ("clouds.secondary.access_key=\"hush\"", "clouds.secondary.access_key"),
        ("clouds.secondary={ kind = \"azure\", sas = \"hush\" }", "clouds.secondary.sas"),
        ("clouds={ secondary = { access_key = \"hush\" } }", "clouds.secondary.access_key"),
    ] {
        let (code, said) = filer(&["init", "ams", "--dir", &d, "--set", set]);
        let is_told =
            said.contains(&format!("--set gives {secret}, which is a secret")) && said.contains("(.._env=NAME)");
        assert!(code == 2 && is_told && !said.contains("hush"), "{set}: {code} {said}");
        assert!(!Path::new(&d).exists(), "{set}");
    }
    // What says where a secret is may be set.
    let (first, second) = ("s3://files?access_key_id_env=ID", format!("dir:{}", desk.path("store")));
    let line = ["init", "ams", "--dir", &d, "--cloud-a", first, "--cloud-b", &second];
    let more = ["--set", "clouds.primary.secret_access_key_env=KEY", "--set", "admin.token_file=admin.token"];
    let (code, said) = filer(&[&line[..], &more].concat());
    assert_eq!(code, 0, "{said}");
}

#[test]
fn every_environment_variable_that_a_cloud_lacks_is_listed() {
    let desk = Desk::new();
    let d = desk.path("ams");
    let first = "s3://files?access_key_id_env=FILERMESH_NO_ID&secret_access_key_env=FILERMESH_NO_SECRET";
    let second = "azure://account/files?access_key_env=FILERMESH_NO_KEY";
    assert_eq!(filer(&["init", "ams", "--dir", &d, "--cloud-a", first, "--cloud-b", second]).0, 0);
    let (code, said) = filer(&["check-config", "--dir", &d]);
    let names = ["FILERMESH_NO_ID", "FILERMESH_NO_SECRET", "FILERMESH_NO_KEY"];
    assert!(code == 2 && said.contains("3 problems") && names.iter().all(|name| said.contains(name)), "{code} {said}");
}

#[test]
fn clouds_are_read_from_the_command_line() {
    let desk = Desk::new();
    let (code, said) = filer(&[
        "init",
        "ams",
        "--dir",
        &desk.path("ams"),
        "--cloud-a",
        "s3://files/deep/prefix?region=eu-west-1&endpoint=http://127.0.0.1:9000&allow_http=true&access_key_id=12345&secret_access_key_env=KEY&name=big%20one",
        "--cloud-b",
        "azure://account/container?access_key_env=AZURE",
    ]);
    assert_eq!(code, 0, "{said}");
    let config = desk.site("ams").config().unwrap();
    let CloudSettings::S3(s3) = &config.clouds.primary.settings else { panic!("S3") };
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_str(), s3.region.as_str()), ("files", "deep/prefix", "eu-west-1"));
    assert_eq!((s3.access_key_id.as_deref(), s3.allow_http), (Some("12345"), true));
    assert_eq!((config.clouds.primary.name.as_str(), config.clouds.secondary.name.as_str()), ("big one", "b"));
    assert!(matches!(&config.clouds.secondary.settings, CloudSettings::Azure(azure) if azure.container == "container"));
}

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

#[test]
fn a_signing_that_fails_takes_nothing_and_may_be_repeated() {
    let desk = Desk::new();
    let ams = desk.path("ams");
    assert_eq!(filer(&["init", "ams", "--dir", &ams]).0, 0);
    assert_eq!(filer(&["init", "fra", "--dir", &desk.path("fra"), "--join"]).0, 0);
    let csr = desk.path("fra/fra.csr");
    for wrong in [&["--days", "0"][..], &["--days", "99999"], &["-o", "/nowhere/at/all/fra.pem"]] {
        assert_eq!(filer(&[&["sign", &csr, "--dir", &ams], wrong].concat()).0, 1, "{wrong:?}");
    }
    assert_eq!(filer(&["sign", &csr, "--dir", &ams]).0, 0, "the name is not burnt");
}

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
        std::fs::remove_file(&pem).unwrap();
    }
    assert_ne!(key(), first_key);

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

#[test]
fn checking_the_settings_makes_nothing() {
    let desk = Desk::new();
    assert_eq!(filer(&["init", "ams", "--dir", &desk.path("ams")]).0, 0);
    let everything = || {
        let mut seen = vec![];
        let mut folders = vec![desk.0.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                seen.push((entry.path(), entry.metadata().unwrap().modified().unwrap()));
            }
        }
        seen.sort();
        seen
    };
    let before = everything();
    assert_eq!(filer(&["check-config", "--dir", &desk.path("ams")]).0, 0);
    assert_eq!(everything(), before);
}

/// Runs a command on a thread of its own while the door is served here.
async fn asked(line: &[&str]) -> (u8, String) {
    let line: Vec<String> = line.iter().map(|word| word.to_string()).collect();
    let run = move || filer(&line.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

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
