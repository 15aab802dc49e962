//! Settings that are wrong: every one of them is listed, at its line, and what merely follows from it is not.

use super::*;

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
                "line 13: mesh.election_min = \"3 s\" is too large: 2 times it must fit in mesh.election_max = \"2 s\" (the default)".into(),
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
            "[segments]\nseal_idle_alone = \"50 ms\"\n",
            vec!["line 12: segments.seal_idle_alone = \"50 ms\" is too large: it must fit in segments.seal_idle = \"20 ms\" (the default)".into()],
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

#[test]
fn an_error_names_the_file_and_each_line() {
    let error = Config::parse(&format!("{GOOD}[cache]\nx = 1\ny = 2\n"), Path::new("/site/filer.toml")).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("/site/filer.toml has 2 problems:\n  line 12: cache.x "), "{text}");
    let error = Config::load(Path::new("/nowhere/filer.toml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/filer.toml cannot be read"));
}
