//! Files that are right, and many that are wrong.

use super::*;
use storage::clouds::CloudSettings;

const GOOD: &str = "
name = \"ams\"
[clouds.primary]
kind = \"directory\"
name = \"a\"
path = \"clouds/a\"
[clouds.secondary]
kind = \"directory\"
name = \"b\"
path = \"clouds/b\"
";

/// The problems of `text`, one line each.
fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new("/site/filer.toml")) {
        Ok(_) => vec![],
        Err(ConfigError::Problems { problems, .. }) => problems.iter().map(Problem::to_string).collect(),
        Err(other) => panic!("{other}"),
    }
}

fn parsed(text: &str) -> Config {
    Config::parse(text, Path::new("/site/filer.toml")).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_example_is_the_defaults() {
    let text = Config::example("ams");
    assert_eq!(parsed(&text), Config::first("ams", Path::new("/site")));
    // With every default made explicit it is still the same: no comment lies.
    let explicit: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(explicit.lines().filter(|line| line.contains(" = ")).count() > 60, "{explicit}");
    assert_eq!(parsed(&explicit), Config::first("ams", Path::new("/site")));
}

#[test]
fn what_is_written_reads_back() {
    let text = format!(
        "{GOOD}[mesh]\nlisten = \"0.0.0.0:7500\"\nadvertise = \"ams.example.org:7500\"\n[segments]\nseal_after = \"250 ms\"\n\
         [nfs]\nlisten = \"10.1.0.5:2049\"\n[[nfs.exports]]\npath = \"/a\"\nnetworks = [\"10.1.0.0/16\"]\nsquash = \"all\"\n\
         [[nfs.exports]]\npath = \"/b\"\nnetworks = [\"::1\"]\nread_only = true\n[metrics]\nlisten = \"off\"\n\
         [health]\nfailback = \"manual\"\nfailures_to_trip = 5\n[log]\nformat = \"json\"\n"
    );
    let config = parsed(&text);
    assert_eq!((config.segments.seal_after_ms, config.health.failures_to_trip), (250, 5));
    assert_eq!(config.mesh.advertise, "ams.example.org:7500");
    assert_eq!(config.nfs.exports[1].networks[0].to_string(), "::1/128");
    assert_eq!(parsed(&config.to_toml(Path::new("/site"))), config);
    assert_eq!(parsed(&config.to_toml(Path::new("/elsewhere"))), config, "absolute paths then");
}

#[test]
fn what_is_worth_a_put_is_an_eighth_of_a_segment_unless_it_is_set() {
    for (added, bytes, written) in [
        ("", 1 << 20, "\n#seal_idle_bytes_min = \"1 MiB\"\n"),
        ("[segments]\nbytes_max = \"4 MiB\"\n", 512 << 10, "\n#seal_idle_bytes_min = \"512 KiB\"\n"),
        (
            "[segments]\nbytes_max = \"4 MiB\"\nseal_idle_bytes_min = \"1 MiB\"\n",
            1 << 20,
            "\nseal_idle_bytes_min = \"1 MiB\"\n",
        ),
    ] {
        let config = parsed(&format!("{GOOD}{added}"));
        assert_eq!(config.segments.seal_idle_bytes_min, bytes, "{added}");
        assert_eq!(config.segments.seal_ahead_bytes_min, config.segments.bytes_max / 2, "{added}");
        let text = config.to_toml(Path::new("/site"));
        assert!(text.contains(written), "{added}: {text}");
        assert_eq!(parsed(&text), config, "{added}");
    }
}

#[test]
fn relative_paths_start_at_the_file() {
    let config = parsed(GOOD);
    assert_eq!(config.data_dir, Path::new("/site/data"));
    assert_eq!(config.admin.socket, Path::new("/site/admin.sock"));
    let CloudSettings::Directory(primary) = &config.clouds.primary.settings else { panic!("a directory") };
    assert_eq!(primary.path, Path::new("/site/clouds/a"));
}

#[test]
fn every_kind_of_cloud_is_read_and_written() {
    let text = "name = \"ams\"\n[clouds.primary]\nkind = \"s3\"\nname = \"aws\"\nbucket = \"bucket\"\nprefix = \"fs\"\n\
        access_key_id = \"id\"\nsecret_access_key_env = \"S\"\nregion = \"eu-west-1\"\nrequest_timeout = \"20 s\"\n\
        [clouds.secondary]\nkind = \"azure\"\nname = \"azure\"\naccount = \"acc\"\ncontainer = \"container\"\naccess_key_file = \"azure.key\"\n";
    let config = parsed(text);
    let CloudSettings::S3(s3) = &config.clouds.primary.settings else { panic!("S3") };
    assert_eq!((s3.bucket.as_str(), s3.region.as_str(), s3.limits.request_timeout_ms), ("bucket", "eu-west-1", 20_000));
    let CloudSettings::Azure(azure) = &config.clouds.secondary.settings else { panic!("Azure") };
    assert_eq!(azure.access_key_file.as_deref(), Some(Path::new("/site/azure.key")));
    assert_eq!((config.clouds.primary.kind(), config.clouds.secondary.kind()), ("s3", "azure"));
    let CloudSettings::S3(s3) = parsed(&text.replace("\"S\"", "\"s3.secret-1_x\"")).clouds.primary.settings else {
        panic!("S3")
    };
    assert_eq!(s3.secret_access_key_env.as_deref(), Some("s3.secret-1_x"), "services may call variables so");
    assert_eq!(parsed(&config.to_toml(Path::new("/site"))), config);
    let gcs = text.replace("kind = \"azure\"", "kind = \"gcs\"").replace(
        "account = \"acc\"\ncontainer = \"container\"\naccess_key_file = \"azure.key\"",
        "bucket = \"other_bucket\"\nmachine_role = true",
    );
    let config = parsed(&gcs);
    assert!(config.clouds.secondary.machine_role);
    assert_eq!(parsed(&config.to_toml(Path::new("/site"))), config);
}

/// Each entry: what is added to (or done with) a good file, and every problem that is found.
#[test]
fn every_problem_is_listed_with_its_line() {
    let time = "write a length of time with its unit, such as \"250 ms\" (units: ms, s, min, h or d)";
    let size = "write a size with its unit, such as \"8 MiB\" (units: B, KiB, MiB, GiB, TiB, kB, MB, GB or TB)";
    let table: Vec<(&str, Vec<String>)> = vec![
        ("", vec![]),
        ("[segments]\nseal_afer = \"1 s\"\n", vec!["line 12: segments.seal_afer is no known setting in [segments]; did you mean seal_after?".into()]),
        ("[helth]\n", vec!["line 11: helth is no known section at the top level; did you mean health?".into()]),
        (
            "[metrics]\nxyzzy = 1\n",
            vec!["line 12: metrics.xyzzy is no known setting in [metrics]; known in [metrics]: listen".into()],
        ),
        ("[segments]\nseal_after = 1000\n", vec![format!("line 12: segments.seal_after the number 1000 has no unit; {time}")]),
        ("[segments]\nseal_after = \"1000\"\n", vec![format!("line 12: segments.seal_after \"1000\" has no unit; {time}")]),
        ("[segments]\nseal_after = \"1 MiB\"\n", vec![format!("line 12: segments.seal_after \"MiB\" is not a unit of a length of time; {time}")]),
        ("[segments]\nseal_after = \"1.5 s\"\n", vec![format!("line 12: segments.seal_after \"1.5 s\" does not begin with a whole number; {time}")]),
        ("[segments]\nbytes_max = 8388608\n", vec![format!("line 12: segments.bytes_max the number 8388608 has no unit; {size}")]),
        ("[segments]\nbytes_max = \"8 mb\"\n", vec![format!("line 12: segments.bytes_max \"mb\" is not a unit of a size; {size}")]),
        (
            "[segments]\nseal_after = \"1 ms\"\nbytes_max = \"1 TiB\"\nputs_in_flight_max = 0\n",
            vec![
                "line 12: segments.seal_after \"1 ms\" is out of range; give 10 ms to 1 h".into(),
                "line 13: segments.bytes_max \"1 TiB\" is out of range; give 64 KiB to 64 MiB".into(),
                "line 14: segments.puts_in_flight_max 0 is out of range; give 1 to 1024".into(),
            ],
        ),
        (
            "[health]\nfailures_to_trip = \"many\"\ntrip_policy = \"all\"\n[nfs]\nlisten = 2049\n[log]\nfilter = true\n",
            vec![
                "line 12: health.failures_to_trip must be a whole number without quotes, from 1 to 1000000, not a text".into(),
                "line 13: health.trip_policy \"all\" is no choice here; write \"any\" or \"majority\"".into(),
                "line 15: nfs.listen must be an address with a port, such as \"127.0.0.1:7400\" or \"[::]:7400\", or \"off\", not a number".into(),
                "line 17: log.filter must be a text in quotes, not true or false".into(),
            ],
        ),
        ("health = 3\n", vec!["line 11: clouds.secondary.health is no known setting in [clouds.secondary]; known in [clouds.secondary]: kind, name, path, prefix, calls_in_flight_max, connect_timeout, request_timeout, time_per_mib, idle_connections_max, always_read_back".into()]),
        (
            "[nfs]\nlisten = \"127.0.0.1:7480\"\n[admin]\nlisten = \"0.0.0.0:7480\"\n",
            vec![
                "line 14: admin.token_file is missing: admin.listen needs it; add token_file, or set listen = \"off\"".into(),
                "line 14: admin.listen \"0.0.0.0:7480\" collides with nfs.listen = \"127.0.0.1:7480\" (line 12); choose another port".into(),
                "line 14: admin.listen \"0.0.0.0:7480\" is no loopback address; use 127.0.0.1 or [::1]".into(),
                "line 12: nfs.listen \"127.0.0.1:7480\" collides with metrics.listen = \"127.0.0.1:7480\" (the default); choose another port".into(),
                "line 14: admin.listen \"0.0.0.0:7480\" collides with metrics.listen = \"127.0.0.1:7480\" (the default); choose another port".into(),
            ],
        ),
        (
            "[nfs]\nlisten = \"0.0.0.0:2049\"\n[[nfs.exports]]\npath = \"/a\"\n[[nfs.exports]]\npath = \"/a\"\nnetworks = [\"10.1.0.0/99\"]\n[[nfs.exports]]\npath = \"b/\"\nnetworks = [\"10.0.0.0/8\"]\n",
            vec![
                "line 13: nfs.exports.0.networks is missing: nfs.listen = \"0.0.0.0:2049\" is open to other machines; add such as networks = [\"10.1.0.0/16\"]".into(),
                "line 16: nfs.exports.1.path \"/a\" is exported already (line 14); keep one of them".into(),
                "line 17: nfs.exports.1.networks \"10.1.0.0/99\" is no network; write such as \"10.1.0.0/16\", \"fd00::/8\" or one address".into(),
                "line 19: nfs.exports.2.path \"b/\" is not a path within the CloudFS; begin it with /".into(),
            ],
        ),
        (
            "[mesh]\nlisten = \"0.0.0.0:7400\"\n",
            vec!["line 12: mesh.advertise is missing: listen = \"0.0.0.0:7400\" names no single address; add advertise = \"host:port\" as peers reach it".into()],
        ),
        (
            "[mesh]\nadvertise = \"ams\"\nelection_min = \"3 s\"\nheartbeat = \"2 s\"\n",
            vec![
                "line 12: mesh.advertise \"ams\" is not host:port; write it as peers reach it, such as \"ams.example.org:7400\"".into(),
                "line 13: mesh.election_min = \"3 s\" is too large: it must fit in mesh.election_max = \"2 s\" (the default)".into(),
                "line 14: mesh.heartbeat = \"2 s\" is too large: 2 times it must fit in mesh.election_min = \"3 s\" (line 13)".into(),
            ],
        ),
        (
            "[cache]\nmemory_bytes_max = \"1 MiB\"\n[segments]\nframe_bytes_max = \"2 MiB\"\n",
            vec!["line 14: segments.frame_bytes_max = \"2 MiB\" is too large: it must fit in cache.memory_bytes_max = \"1 MiB\" (line 12)".into()],
        ),
        (
            "[segments]\nbytes_max = \"2 MiB\"\nseal_idle_bytes_min = \"3 MiB\"\n",
            vec!["line 13: segments.seal_idle_bytes_min = \"3 MiB\" is too large: it must fit in segments.bytes_max = \"2 MiB\" (line 12)".into()],
        ),
        (
            "[segments]\ndelete_grace = \"0 s\"\n",
            vec!["line 12: segments.delete_grace \"0 s\" is out of range; give 1 s to 365 d".into()],
        ),
        (
            "[segments]\ndelete_grace = \"99 s\"\n",
            vec![
                "line 12: segments.delete_grace = \"99 s\" is too short: one put to clouds.secondary may take \"50 s\" (request_timeout, and time_per_mib for segments.bytes_max), and one that is begun in the first half must not arrive behind the delete; set \"100 s\" or more".into(),
            ],
        ),
        ("[segments]\ndelete_grace = \"100 s\"\n", vec![]),
        (
            "[consistency]\nreads = \"stale\"\nstale_within = \"10 min\"\n[segments]\ndelete_grace = \"5 min\"\n",
            vec![
                "line 15: segments.delete_grace = \"5 min\" is too short: readers may see a state as old as consistency.stale_within = \"10 min\", and need the segments of it; set that or more".into(),
            ],
        ),
        (
            "[log]\nfilter = \"wran\"\n",
            vec!["line 12: log.filter \"wran\" is no level; write error, warn, info, debug or trace, or PART=LEVEL".into()],
        ),
        ("[log]\nfilter = \"warn,openraft=error,filer::nfs=debug\"\n", vec![]),
        (
            "[log]\nfilter = \"wran,storage=debug,ifno\"\n",
            vec!["line 12: log.filter \"wran\" and \"ifno\" are no levels; write error, warn, info, debug or trace, or PART=LEVEL".into()],
        ),
        (
            "[mesh]\nlisten = \"0.0.0.0:7400\"\nadvertise = \"0.0.0.0:7400\"\n",
            vec!["line 13: mesh.advertise \"0.0.0.0:7400\" is where one listens, and no address that leads here; write it as peers reach it, such as \"ams.example.org:7400\"".into()],
        ),
        ("[[nfs.export]]\npath = \"/\"\n", vec!["line 11: nfs.export is no known section in [nfs]; did you mean exports?".into()]),
        (
            "[[nfs.exports]]\npath = \"/\"\nuid = 7\n",
            vec!["line 13: nfs.exports.0.uid is no known setting in [[nfs.exports]]; known in [[nfs.exports]]: path, networks, squash, anonymous_uid, anonymous_gid, read_only".into()],
        ),
        (
            "[segments]\nbytes_max = \"8 MiB\"\nbytes_max = \"4 MiB\"\n",
            vec!["line 13: bytes_max stands in this section already (line 12); keep one of them".into()],
        ),
        (
            "[[nfs.exports]]\npath = \"/a\"\n[nfs.exports]\npath = \"/b\"\n",
            vec!["line 13: [nfs.exports] stands in this file already in other brackets (line 11); write all of them alike, with [[ ]] where there may be several".into()],
        ),
        (
            "[segments]\nbytes_max = 8 MiB\n[health]\nfailures_to_trip = 0\n",
            vec![
                "line 12: is no valid TOML here (bytes_max ..): string values must be quoted, expected literal string; a text, or a number with its unit, stands in quotes".into(),
                "line 14: health.failures_to_trip 0 is out of range; give 1 to 1000000".into(),
            ],
        ),
    ];
    for (added, expected) in table {
        let mut found = problems(&format!("{GOOD}{added}"));
        let mut expected = expected;
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "\n{added}");
    }
}

#[test]
fn each_network_that_is_wrong_is_told_of_at_its_own_line() {
    let form = "is no network; write such as \"10.1.0.0/16\", \"fd00::/8\" or one address";
    let exports = "[[nfs.exports]]\npath = \"/a\"\nnetworks = [\"10.1.0.0/33\", \"10.1.0.0/16\", \"office\"]\n\
        [[nfs.exports]]\npath = \"/b\"\nnetworks = [\n  \"10.2.0.0/16\",\n  \"fd00::/129\", # too long\n\n  7,\n]\n";
    assert_eq!(
        problems(&format!("{GOOD}{exports}")),
        [
            format!("line 13: nfs.exports.0.networks \"10.1.0.0/33\" {form}"),
            format!("line 13: nfs.exports.0.networks \"office\" {form}"),
            format!("line 18: nfs.exports.1.networks \"fd00::/129\" {form}"),
            "line 20: nfs.exports.1.networks must be a text in quotes, not a number".into(),
        ]
    );
    let alone = "[[nfs.exports]]\npath = \"/a\"\nnetworks = \"10.1.0.0/16\"\n";
    assert_eq!(
        problems(&format!("{GOOD}{alone}")),
        ["line 13: nfs.exports.0.networks must be a list in [ ], not a text"]
    );
}

#[test]
fn every_problem_of_the_clouds_is_listed() {
    let table: Vec<(&str, Vec<&str>)> = vec![
        (
            "",
            vec![
                "name is missing; add it, such as name = \"ams\"",
                "clouds.primary is missing: a CloudFS needs two clouds; add the section with kind and name",
                "clouds.secondary is missing: a CloudFS needs two clouds; add the section with kind and name",
            ],
        ),
        (
            "name = \"a b\"\n[clouds.primary]\nkind = \"s4\"\nname = \"x\"\nbukket = \"b\"\n[clouds.secondary]\nname = \"x\"\n",
            vec![
                "line 1: name \"a b\" cannot name a filer; use 1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit",
                "line 3: clouds.primary.kind \"s4\" is no choice here; write \"s3\" or \"azure\" or \"gcs\" or \"directory\"",
                "line 6: clouds.secondary.kind is missing; add it, such as kind = \"directory\"",
                "line 7: clouds.secondary.name \"x\" is the name of clouds.primary too (line 4); give each cloud a name of its own",
            ],
        ),
        (
            "name = \"a\"\n[clouds.primary]\nkind = \"s3\"\nname = \"x\"\nbucket = \"files\"\n[clouds.secondary]\nkind = \"azure\"\nname = \"y\"\n",
            vec![
                "line 2: clouds.primary has no credentials; give access_key_id and secret_access_key (or their _env or _file), or machine_role = true",
                "line 6: clouds.secondary has no credentials; give access_key or sas (or their _env or _file), or machine_role = true",
                "line 6: clouds.secondary.account is missing; add it, such as account = \"examplefiles\"",
                "line 6: clouds.secondary.container is missing; add it, such as container = \"files\"",
            ],
        ),
        (
            "name = \"a\"\n[clouds.primary]\nkind = \"s3\"\nname = \"x\"\nbucket = \"b\"\nendpoint = \"http://store:9000/\"\naccess_key_id = \"i\"\n\
             [clouds.secondary]\nkind = \"s3\"\nname = \"y\"\nbucket = \"b\"\nendpoint = \"http://STORE:9000\"\nallow_http = true\naccess_key_id = \"i\"\nsecret_access_key = \"k\"\nsecret_access_key_env = \"K\"\nprefix = \"other\"\n",
            vec![
                "line 7: clouds.primary.secret_access_key is missing beside access_key_id; add it, or its _env or _file",
                "line 6: clouds.primary.endpoint is http://, which anybody on the way can read; use https://, or add allow_http = true",
                "line 11: clouds.secondary.bucket is the same place as clouds.primary (line 5): one failure would take both; name another bucket",
                "line 16: clouds.secondary.secret_access_key_env is one place too many beside secret_access_key (line 15); keep one of them",
            ],
        ),
        (
            "name = \"a\"\ndata_dir = \"d\"\n[clouds.primary]\nkind = \"directory\"\nname = \"b\"\npath = \"c\"\n\
             [clouds.secondary]\nkind = \"gcs\"\nname = \"y\"\nbucket = \"g\"\nanonymous = true\nendpoint = \"https://id:hush@host\"\n",
            vec![
                "line 5: clouds.primary.name \"b\" is how commands and logs call the secondary cloud; choose another name",
                "line 12: clouds.secondary.endpoint holds user:password@; credentials have settings of their own, write the address alone",
            ],
        ),
        (
            "name = \"a\"\ndata_dir = \"d\"\n[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = \"c\"\n\
             [clouds.secondary]\nkind = \"directory\"\nname = \"y\"\npath = \"c/sub\"\n",
            vec![
                "line 10: clouds.secondary.path is the same place as clouds.primary (line 6): one failure would take both; name another path",
            ],
        ),
        (
            "name = \"a\"\ndata_dir = \"d\"\n[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = \"d/c\"\n\
             [clouds.secondary]\nkind = \"gcs\"\nname = \"y\"\nbucket = \"files\"\nanonymous = true\nmachine_role = true\n",
            vec![
                "line 6: clouds.primary.path and data_dir (line 2) lie one within the other; give the cloud a directory of its own",
                "line 11: clouds.secondary.anonymous contradicts machine_role (line 12); keep one of service_account_path, machine_role and anonymous",
            ],
        ),
    ];
    for (text, expected) in table {
        let mut found = problems(text);
        let mut expected: Vec<String> = expected.into_iter().map(String::from).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "\n{text}");
    }
}

#[test]
fn what_follows_from_a_problem_is_not_told_as_another_one() {
    for (added, expected) in [
        (
            "[segments]\nbytes_max = \"1 TiB\"\nframe_bytes_max = \"6 MiB\"\n",
            "line 12: segments.bytes_max \"1 TiB\" is out of range; give 64 KiB to 64 MiB",
        ),
        (
            "[[nfs.exports]]\npath = \"/\"\n[[nfs.exports]]\nread_only = true\n",
            "line 13: nfs.exports.1.path is missing; add it, such as path = \"/\"",
        ),
        (
            "[metrics]\nlisten = \"127.0.0.1\"\n[nfs]\nlisten = \"127.0.0.1:7480\"\n",
            "line 12: metrics.listen \"127.0.0.1\" is not an address to listen on; write an address with a port, such as \"127.0.0.1:7400\" or \"[::]:7400\", or \"off\"",
        ),
        (
            "[nfs]\nexports = 3\nlisten = \"0.0.0.0:2049\"\n",
            "line 12: nfs.exports must be a list of sections, each written [[nfs.exports]], not a number",
        ),
    ] {
        assert_eq!(problems(&format!("{GOOD}{added}")), [expected], "{added}");
    }
    let cloud = "name = \"ams\"\n[clouds]\nprimary = 3\n[clouds.secondary]\nkind = \"s3\"\nname = 7\nbucket = \"example-files\"\n\
        access_key_id = \"id\"\nsecret_access_key = \"\"\n";
    assert_eq!(
        problems(cloud),
        [
            "line 3: clouds.primary must be a section, written [clouds.primary], not a number",
            "line 6: clouds.secondary.name must be a text in quotes, not a number",
            "line 9: clouds.secondary.secret_access_key is empty; give a text",
        ]
    );
}

#[test]
fn a_key_in_an_endpoint_is_not_repeated() {
    for endpoint in [
        "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=hush==",
        "BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=2024&sig=hush",
        "https://acc.blob.core.windows.net/;AccountKey=hush",
        "https://acc.blob.core.windows.net/files?sig=hush",
        "https://id:hush@store.example.org",
        "id:hush@store.example.org",
    ] {
        let cloud = "[clouds.secondary]\nkind = \"s3\"\nname = \"y\"\nbucket = \"files\"\nmachine_role = true\n";
        let primary = "[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = \"store\"\n";
        let found = problems(&format!("name = \"ams\"\n{primary}{cloud}endpoint = \"{endpoint}\"\n"));
        assert!(found.len() == 1 && found[0].ends_with(" write the address alone"), "{found:?}");
        assert!(!found[0].contains("hush"), "{found:?}");
    }
}

#[test]
fn a_way_to_be_known_that_cannot_be_read_contradicts_no_other() {
    let s3 = "kind = \"s3\"\nbucket = \"example-files\"\naccess_key_id = \"id\"\n";
    let (gcs, azure) =
        ("kind = \"gcs\"\nbucket = \"files\"\n", "kind = \"azure\"\naccount = \"acc\"\ncontainer = \"files\"\n");
    for (cloud, ways, told) in [
        (s3, "secret_access_key = \"k\"\nmachine_role = \"no\"\n", "machine_role"),
        (s3, "machine_role = \"no\"\n", "machine_role"),
        (gcs, "machine_role = true\nanonymous = \"no\"\n", "anonymous"),
        (gcs, "service_account_path = \"s.json\"\nmachine_role = 0\n", "machine_role"),
        (azure, "access_key = \"k\"\nmachine_role = \"no\"\n", "machine_role"),
        (azure, "access_key = 7\nsas = \"s\"\n", "access_key"),
    ] {
        let primary = "[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = \"store\"\n";
        let found = problems(&format!("name = \"ams\"\n{primary}[clouds.secondary]\nname = \"y\"\n{cloud}{ways}"));
        assert!(found.len() == 1 && found[0].contains(&format!(".{told} must be ")), "{ways}: {found:?}");
    }
}

/// In one line, a setting and its section begin in the same one.
#[test]
fn sections_in_one_line_are_read_as_others() {
    let text = "name = \"ams\"\nnfs = { listen = \"0.0.0.0:2049\", exports = [{ path = \"/\", networks = [\"10.0.0.0/8\"] }] }\n\
        [clouds]\nprimary = { kind = \"directory\", name = \"one\", path = \"same\" }\n\
        secondary = { kind = \"directory\", name = \"one\", path = \"same\" }\n";
    assert_eq!(
        problems(text),
        [
            "line 5: clouds.secondary.name \"one\" is the name of clouds.primary too (line 4); give each cloud a name of its own",
            "line 5: clouds.secondary.path is the same place as clouds.primary (line 4): one failure would take both; name another path",
        ]
    );
}

#[test]
fn the_setting_that_asks_for_another_is_the_line_of_what_is_missing() {
    for (added, expected) in [
        (
            "[nfs]\nconnections_max = 10\nlisten = \"10.1.0.5:2049\"\n",
            "line 13: nfs.listen = \"10.1.0.5:2049\" is open to other machines, and nothing says which of them may come; add a section [[nfs.exports]] with path = \"/\" and such as networks = [\"10.1.0.0/16\"]",
        ),
        (
            "request_timeout = \"1 h\"\n",
            "line 11: segments.delete_grace = \"1 h\" is too short: one put to clouds.secondary may take \"3640 s\" (request_timeout, and time_per_mib for segments.bytes_max), and one that is begun in the first half must not arrive behind the delete; set \"7280 s\" or more",
        ),
    ] {
        assert_eq!(problems(&format!("{GOOD}{added}")), [expected], "{added}");
    }
}

/// The providers' own names are judged by their rules, those of other servers by what can be no name at all.
#[test]
fn names_that_no_bucket_can_have_are_refused() {
    let cloud = |place: &str, kind: &str, more: &str| {
        format!("[clouds.{place}]\nname = \"{place}\"\nkind = \"{kind}\"\n{more}machine_role = true\n")
    };
    let judged = |first: &str, second: &str| -> Vec<String> {
        let told = problems(&format!("name = \"ams\"\n{first}{second}"));
        told.iter().map(|told| told.split(';').next().unwrap_or_default().to_string()).collect()
    };
    let azure = |account: &str, container: &str| {
        cloud("secondary", "azure", &format!("account = \"{account}\"\ncontainer = \"{container}\"\n"))
    };
    assert_eq!(
        judged(
            &cloud("primary", "s3", "bucket = \"s3://files/fs\"\n"),
            &azure("https://acc.blob.core.windows.net", "a--b")
        ),
        [
            "line 5: clouds.primary.bucket \"s3://files/fs\" is more than a name",
            "line 10: clouds.secondary.account \"https://acc.blob.core.windows.net\" is the address of a server",
            "line 11: clouds.secondary.container \"a--b\" cannot name a container",
        ]
    );
    let own = "endpoint = \"https://store.example.org\"\nbucket = \"My_Files\"\n";
    assert_eq!(
        judged(&cloud("primary", "s3", "bucket = \"My_Files\"\nregion = \"eu-west-1\"\n"), &azure("Acc", "files")),
        [
            "line 5: clouds.primary.bucket \"My_Files\" cannot name a bucket of AWS",
            "line 11: clouds.secondary.account \"Acc\" cannot name a storage account of Azure",
        ]
    );
    for (more, count) in [
        ("", 0),
        ("region = \"us-east-1\"\n", 0),
        ("region = \"us-east-1\"\nvirtual_hosted = true\n", 1),
        ("region = \"us-west-1\"\n", 1),
    ] {
        let old = cloud("primary", "s3", &format!("bucket = \"My_Files\"\n{more}"));
        assert_eq!(judged(&old, &azure("acc", "files")).len(), count, "{more}");
    }
    assert_eq!(judged(&cloud("primary", "s3", own), &azure("acc", "files")), [""; 0]);
    assert_eq!(
        judged(&cloud("primary", "s3", own), &cloud("secondary", "gcs", "bucket = \"Files\"\n")),
        ["line 11: clouds.secondary.bucket \"Files\" cannot name a bucket of Google"]
    );
    assert_eq!(judged(&cloud("primary", "gcs", own), &azure("acc", "files")), [""; 0]);
    // What is no text, or missing, is told as that alone.
    assert_eq!(
        judged(&cloud("primary", "s3", "bucket = 7\n"), &cloud("secondary", "gcs", "")),
        [
            "line 5: clouds.primary.bucket must be a text in quotes, not a number",
            "line 7: clouds.secondary.bucket is missing",
        ]
    );
}

#[test]
fn one_bucket_is_noticed_at_all_of_its_addresses() {
    let s3 = |bucket: &str, endpoint: &str| {
        format!(
            "kind = \"s3\"\nbucket = \"{bucket}\"\nendpoint = \"{endpoint}\"\nallow_http = true\naccess_key_id = \"i\"\nsecret_access_key = \"k\"\n"
        )
    };
    let gcs = "kind = \"gcs\"\nbucket = \"example-files\"\nmachine_role = true\n".to_string();
    let aws = "kind = \"s3\"\nbucket = \"example-files\"\nmachine_role = true\n".to_string();
    let gov = format!("{aws}region = \"us-gov-west-1\"\n");
    let judged = |first: &str, second: &str| {
        let text = format!(
            "name = \"ams\"\n[clouds.primary]\nname = \"x\"\n{first}[clouds.secondary]\nname = \"y\"\n{second}"
        );
        problems(&text)
            .iter()
            .filter(|problem| problem.contains("is the same place as clouds.primary (line 5)"))
            .count()
    };
    let same = "example-files";
    for (first, second, expected) in [
        (&aws, &s3(same, "https://s3.eu-west-1.amazonaws.com"), 1),
        (&aws, &s3("others", "https://s3.eu-west-1.amazonaws.com"), 0),
        (&aws, &s3(same, "https://s3.us-gov-west-1.amazonaws.com"), 0),
        (&aws, &s3(same, "https://s3-fips-us-gov-west-1.amazonaws.com"), 0),
        (&aws, &gov, 0),
        (&gov, &s3(same, "https://s3.us-gov-east-1.amazonaws.com"), 1),
        (&aws, &gcs, 0),
        (&gcs, &s3(same, "https://storage.googleapis.com:443/"), 1),
        (&s3(same, "http://Store.example.org"), &s3(same, "https://store.example.org/"), 1),
        (&s3(same, "http://store:9000"), &s3(same, "http://store:9001"), 0),
        (&s3(same, "http://ec2-1.amazonaws.com"), &s3(same, "http://ec2-2.amazonaws.com"), 0),
    ] {
        assert_eq!(judged(first, second), expected, "{first}\n{second}");
    }
}

/// What must be there when a filer serves is told beside what is wrong with the file itself.
#[test]
fn what_is_not_on_this_machine_is_told_at_the_setting_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    let told = |text: &str, site: Option<&str>| -> Vec<String> {
        std::fs::write(&path, text).unwrap();
        match Config::load_to_serve(&path, site) {
            Ok(_) => vec![],
            Err(ConfigError::Problems { problems, .. }) => problems.iter().map(Problem::to_string).collect(),
            Err(other) => panic!("{other}"),
        }
    };
    let text = "name = \"ams\"\n[clouds.primary]\nkind = \"s3\"\nname = \"aws\"\nbucket = \"example-files\"\nregion = \"eu-west-1\"\n\
        access_key_id_env = \"FILERMESH_NO_ID\"\nsecret_access_key_file = \"no.secret\"\nca_file = \"no.pem\"\nrequest_timeout = 5\n\
        [clouds.secondary]\nkind = \"directory\"\nname = \"disk\"\npath = \"absent\"\n\
        [admin]\nlisten = \"127.0.0.1:7481\"\ntoken_file = \"no.token\"\n";
    let base = dir.path().display();
    let expected = [
        "line 1: name is \"ams\", and the site's certificate is for \"fra\"; a site cannot be renamed: write name = \"fra\"".into(),
        "line 7: clouds.primary.access_key_id_env gives nothing: the environment variable FILERMESH_NO_ID is not set; set it for filer serve, and for filer check-config too".into(),
        format!("line 8: clouds.primary.secret_access_key_file gives nothing: the file {base}/no.secret: "),
        format!("line 9: clouds.primary.ca_file names {base}/no.pem, which cannot be used: "),
        "line 10: clouds.primary.request_timeout the number 5 has no unit; ".into(),
        format!("line 14: clouds.secondary.path names {base}/absent, which cannot be used: "),
        format!("line 17: admin.token_file {base}/no.token: "),
    ];
    let found = told(text, Some("fra"));
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.starts_with(expected.as_str()), "{found}\nis not\n{expected}");
    }
    assert_eq!(told(text, None).len(), expected.len() - 1, "any name will do");

    let azure = text.replace(
        "kind = \"directory\"\nname = \"disk\"\npath = \"absent\"\n",
        "kind = \"azure\"\nname = \"azure\"\naccount = \"acc\"\ncontainer = \"files\"\naccess_key = \"aGk=\"\naccess_key_env = \"hush!\"\n",
    );
    let found: Vec<String> = told(&azure, None).into_iter().filter(|told| told.contains("secondary")).collect();
    assert_eq!(
        found,
        [
            "line 17: clouds.secondary.access_key_env is no name of an environment variable, which has letters, digits, '_', '.' and '-'; write the name, and have the variable hold the rest",
            "line 17: clouds.secondary.access_key_env is one place too many beside access_key (line 16); keep one of them",
        ]
    );
}

/// Of a cloud of no known kind nothing is looked for: where it is to be, nobody knows.
#[test]
fn a_cloud_without_its_kind_needs_nothing_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    std::fs::create_dir(dir.path().join("store")).unwrap();
    for primary in [
        "[clouds.primary]\nkind = s3\nname = \"x\"\n",
        "[clouds.primary]\nkind = \"s4\"\nname = \"x\"\n",
        "[clouds.primary]\nname = \"x\"\n",
        "[clouds]\nprimary = 3\n",
    ] {
        let secondary = "[clouds.secondary]\nkind = \"directory\"\nname = \"y\"\npath = \"store\"\n";
        std::fs::write(&path, format!("name = \"ams\"\n{primary}{secondary}")).unwrap();
        let said = Config::load_to_serve(&path, None).unwrap_err().to_string();
        assert!(said.contains("has 1 problem:"), "{primary}: {said}");
    }
}

/// A filer that runs can be asked how it is, though somebody is in the middle of changing its settings.
#[test]
fn the_admin_socket_is_found_beside_mistakes_but_not_guessed_in_place_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    let found = |added: &str| {
        std::fs::write(&path, format!("{GOOD}{added}")).unwrap();
        Config::admin_socket(&path)
    };
    let at = |name: &str| dir.path().join(name);
    assert_eq!(found("[admin]\nsocket = \"s\"\n").unwrap(), (at("s"), None));
    assert_eq!(found("").unwrap(), (at("admin.sock"), None));
    for (added, socket, count) in [
        ("colour = 1\nname = 2\n[admin]\nsocket = \"s\"\n", "s", "2 problems"),
        ("[admin]\nsocket = \"s\"\nlisten = 7\n", "s", "1 problem"),
        ("[admin]\nsocket = \"s\"\n[health\n", "s", "1 problem"),
        ("[segments]\nbytes_max = 8 MiB\n", "admin.sock", "1 problem"),
        ("#socket = \"s\"\n[health\n", "admin.sock", "1 problem"),
    ] {
        let (asked, warning) = found(added).unwrap_or_else(|e| panic!("{added}: {e}"));
        let warning = warning.unwrap_or_default();
        assert_eq!(asked, at(socket), "{added}");
        assert!(warning.contains(&format!("filer.toml has {count}, which filer check-config lists")), "{warning}");
        assert!(warning.contains(&asked.display().to_string()) && !warning.contains('\n'), "{warning}");
    }
    for added in [
        "[admin]\nsocket = 7\n",
        "[admin]\nsocket = s\n",
        "[admin]\nsocket = \"\"\n",
        "[[admin]]\nsocket = \"s\"\n",
        "[admin\nsocket = \"s\"\n",
        "[admin\nsocket = \"s\"\n[metrics]\nlisten = \"off\"\n",
        "[admin]\nsocket = 7\n[health\n",
        "[adnim]\nsocket = \"s\"\n",
    ] {
        let refused = found(added).unwrap_err().to_string();
        assert!(refused.contains("has 1 problem:"), "{added}: {refused}");
    }
    for text in ["", "\n \n"] {
        std::fs::write(&path, text).unwrap();
        let refused = Config::admin_socket(&path).unwrap_err().to_string();
        assert!(refused.contains("has 3 problems:") && refused.contains("name is missing"), "{refused}");
    }
}

#[test]
fn a_file_that_is_no_text_is_told_where_it_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    std::fs::write(&path, b"name = \"ams\"\ndata_dir = \"caf\xe9\"\n").unwrap();
    let said = Config::load(&path).unwrap_err().to_string();
    assert!(
        said.ends_with("filer.toml has 1 problem:\n  line 2: is no text in UTF-8 here; write it in UTF-8"),
        "{said}"
    );
}

#[test]
fn an_error_names_the_file_and_each_line() {
    let error = Config::parse(&format!("{GOOD}[cache]\nx = 1\ny = 2\n"), Path::new("/site/filer.toml")).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("/site/filer.toml has 2 problems:\n  line 12: cache.x "), "{text}");
    let error = Config::load(Path::new("/nowhere/filer.toml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/filer.toml cannot be read"));
}

/// A log, a page, a file of another program: what is wrong is said once, and nothing is read out of it.
#[test]
fn a_text_that_is_no_toml_has_one_problem() {
    for (text, beginning) in [
        ("name: ams\nclouds:\n  - kind: s3\n".repeat(100), "line 1: is no valid TOML here (name ..): "),
        ("<html>\n<p>nothing\n".repeat(100), "line 1: is no valid TOML here: "),
        (format!("{GOOD}[health\nfailures_to_trip = 0\ncolour = 1\n"), "line 11: is no valid TOML here ([health): "),
        (format!("{GOOD}secret_access_key = hush\n"), "line 11: is no valid TOML here (secret_access_key ..): "),
    ] {
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].starts_with(beginning) && !found[0].contains("hush"), "{found:?}");
    }
}

#[test]
fn nothing_that_a_broken_text_names_is_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    std::fs::write(&path, format!("{GOOD}[health\n")).unwrap();
    let said = Config::load_to_serve(&path, Some("fra")).unwrap_err().to_string();
    assert!(said.contains("filer.toml has 1 problem:\n  line 11: is no valid TOML here ([health): "), "{said}");
}

/// A slip in one line hides no other, and brings about none.
#[test]
fn what_stands_twice_or_without_quotes_is_told_beside_all_else() {
    let text = "name = ams\ndata_dir = \"d\"\ndata_dir = \"e\"\n[clouds.primary]\nkind = \"directory\"\nname = \"x\"\npath = one\n\
        [clouds.secondary]\nkind = \"directory\"\nname = \"x\"\npath = \"two\"\n[segments]\nseal_after = 1 s\nseal_afer = 1\n\
        [clouds.secondary]\npath = \"three\"\nprefix = 7\n";
    let found = problems(text);
    let beginnings = [
        "line 1: is no valid TOML here (name ..): ",
        "line 3: data_dir stands in this section already (line 2); keep one of them",
        "line 7: is no valid TOML here (path ..): ",
        "line 10: clouds.secondary.name \"x\" is the name of clouds.primary too (line 6); give each cloud a name of its own",
        "line 13: is no valid TOML here (seal_after ..): ",
        "line 14: segments.seal_afer is no known setting in [segments]; did you mean seal_after?",
        "line 15: [clouds.secondary] stands in this file already (line 8); put all of its settings below one of them",
        "line 16: path stands in this section already (line 11); keep one of them",
        "line 17: clouds.secondary.prefix must be a text in quotes, not a number",
    ];
    assert_eq!(found.len(), beginnings.len(), "{found:#?}");
    for (found, beginning) in found.iter().zip(beginnings) {
        assert!(found.starts_with(beginning), "{found}\nis not\n{beginning}");
    }
}

#[test]
fn settings_that_hold_a_secret_are_known_by_name() {
    for key in [
        "secret_access_key",
        "access_key",
        "session_token",
        "sas",
        "secret",
        "sig",
        "key",
        "X-Amz-Signature",
        "accountKey",
    ] {
        assert!(holds_secret(key), "{key}");
    }
    for key in [
        "access_key_id",
        "access_key_id_env",
        "secret_access_key_env",
        "sas_file",
        "service_account_path",
        "token_file",
        "unsigned_payload",
        "keep_alive",
        "region",
        "",
    ] {
        assert!(!holds_secret(key), "{key}");
    }
}

#[test]
fn secrets_stay_at_home() {
    let text = "name = \"ams\"\n[clouds.primary]\nkind = \"s3\"\nname = \"aws\"\nbucket = \"files\"\naccess_key_id = \"id\"\nsecret_access_key = \"hush\"\n\
        [clouds.secondary]\nkind = \"azure\"\nname = \"azure\"\naccount = \"acc\"\ncontainer = \"files\"\nsas = \"hush\"\n";
    let mut config = parsed(text);
    assert!(!format!("{config:?}").contains("hush"));
    config.clouds.primary = config.clouds.primary.without_secrets();
    config.clouds.secondary = config.clouds.secondary.without_secrets();
    assert!(!config.to_toml(Path::new("/site")).contains("hush"));
}

/// What `config.example.toml` of the repository holds below its own head.
fn three_sites() -> Config {
    let base = Path::new("/var/lib/filer");
    let clouds = "name = \"ams\"\n[clouds.primary]\nkind = \"s3\"\nname = \"aws\"\nbucket = \"example-files\"\nregion = \"eu-west-1\"\n\
        access_key_id_env = \"FILER_S3_ID\"\nsecret_access_key_env = \"FILER_S3_SECRET\"\n\
        [clouds.secondary]\nkind = \"azure\"\nname = \"azure\"\naccount = \"examplefiles\"\ncontainer = \"files\"\n\
        access_key_env = \"FILER_AZURE_KEY\"\n\
        [mesh]\nlisten = \"0.0.0.0:7400\"\nadvertise = \"ams.example.org:7400\"\n\
        [nfs]\nlisten = \"0.0.0.0:2049\"\n[[nfs.exports]]\npath = \"/\"\nnetworks = [\"10.1.0.0/16\"]\n\
        [staging]\nbytes_max = \"200 GiB\"\n[cache]\ndisk_bytes_max = \"1 TiB\"\nmemory_bytes_max = \"4 GiB\"\n";
    Config::parse(clouds, &base.join(CONFIG_FILE)).unwrap()
}

#[test]
fn the_example_in_the_repository_is_what_the_program_writes() {
    let text = include_str!("../../../config.example.toml");
    let path = Path::new("/var/lib/filer/filer.toml");
    assert_eq!(Config::parse(text, path).unwrap_or_else(|e| panic!("{e}")), three_sites());
    let written = three_sites().to_toml(Path::new("/var/lib/filer"));
    assert!(text.ends_with(&written), "below its head, config.example.toml should be:\n{written}");
}

#[test]
fn one_directory_under_two_names_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    std::fs::create_dir_all(at("a/deep")).unwrap();
    std::fs::create_dir(at("b")).unwrap();
    std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
    let judged = |first: &str, second: &str| {
        let text = format!(
            "name = \"x\"\n[clouds.primary]\nkind = \"directory\"\nname = \"a\"\npath = \"{first}\"\n\
             [clouds.secondary]\nkind = \"directory\"\nname = \"b\"\npath = \"{second}\"\n"
        );
        Config::parse(&text, &at("filer.toml")).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(judged("a", "b"), Ok(()));
    assert_eq!(judged("a", "later/there"), Ok(()));
    for (first, second) in [
        ("a", "link"),
        ("a", "b/../a"),
        ("link/deep", "a"),
        ("a", "link/new"),
        ("new", "b/../new/."),
        ("a/deep", "link/deep/more"),
    ] {
        let said = judged(first, second).expect_err(second);
        assert!(said.contains("is the same place as clouds.primary"), "{first} {second}: {said}");
    }
    let data = "name = \"x\"\ndata_dir = \"link/data\"\n[clouds.primary]\nkind = \"directory\"\nname = \"a\"\npath = \"a\"\n\
         [clouds.secondary]\nkind = \"directory\"\nname = \"b\"\npath = \"b\"\n";
    let said = Config::parse(data, &at("filer.toml")).unwrap_err().to_string();
    assert!(said.contains("lie one within the other"), "{said}");
}
