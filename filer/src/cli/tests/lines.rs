//! Command lines: what is taken, what is refused, what the help says.

use super::filer;
use crate::cli::{Cli, CloudCommand, Command, Look, PeersCommand};
use clap::{CommandFactory, Parser};
use std::path::Path;

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
    let unit = include_str!("../../../filer.service");
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
