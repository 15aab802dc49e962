//! The admin socket, for who needs nothing else of the file: it is found beside mistakes, and not guessed.

use super::*;

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
