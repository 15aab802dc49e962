//! What a filer's settings are when nothing is said, how they are written, and that what is written reads back.

use super::*;

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
fn a_segment_waits_5_ms_while_it_is_alone_or_less_where_others_do_unless_it_is_set() {
    for (added, ms, written) in [
        ("", 5, "\n#seal_idle_alone = \"5 ms\"\n"),
        ("[segments]\nseal_idle = \"3 ms\"\n", 3, "\n#seal_idle_alone = \"3 ms\"\n"),
        ("[segments]\nseal_idle = \"9 ms\"\nseal_idle_alone = \"8 ms\"\n", 8, "\nseal_idle_alone = \"8 ms\"\n"),
    ] {
        let config = parsed(&format!("{GOOD}{added}"));
        assert_eq!(config.segments.seal_idle_alone_ms, ms, "{added}");
        let text = config.to_toml(Path::new("/site"));
        assert!(text.contains(written), "{added}: {text}");
        assert_eq!(parsed(&text), config, "{added}");
    }
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
    let text = include_str!("../../../../config.example.toml");
    let path = Path::new("/var/lib/filer/filer.toml");
    assert_eq!(Config::parse(text, path).unwrap_or_else(|e| panic!("{e}")), three_sites());
    let written = three_sites().to_toml(Path::new("/var/lib/filer"));
    assert!(text.ends_with(&written), "below its head, config.example.toml should be:\n{written}");
}
