//! Files that are no TOML, or no text at all: what can be read of them is, and the rest is told once.

use super::*;

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
