//! The command line: `filer init`, `serve`, `status` and the rest.
//!
//! Owns: the commands, their help, what they print, their exit codes; making a site's directory and letting a new
//! site in. Does not own: serving (`site`), what the admin door answers (`admin`).

#![expect(clippy::disallowed_methods, reason = "commands work on the machine they are given on")]

mod bundle;
mod init;
mod issued;
mod join;
mod log;
mod page;
mod places;
mod renew;
mod revoke;
#[cfg(test)]
mod tests;

pub use log::start_log;

use crate::{
    admin::{
        AdminClient, ClientError, Refusal, Status,
        status::{Peer, RevokedRow},
    },
    config::{Config, ConfigError, SiteDir, SiteError, SiteFile},
};
use clap::{Args, CommandFactory, Parser, Subcommand};
use mesh::{net::IdentityError, words::chain};
use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// How often `--watch` looks, in milliseconds.
const WATCH_MS: u64 = 1_000;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage or settings
  3  refused by the rules, such as a failover to a cloud that misses something
  4  no filer answers
  5  most filers cannot be reached: nothing can be decided now, try again later";

/// Serves one file system at many sites, and keeps it in two clouds.
#[derive(Debug, Parser)]
#[command(name = "filer", version, max_term_width = 100, after_help = main_help())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

fn main_help() -> String {
    format!(
        "\
Examples:
  filer init ams --dir /var/lib/filer        make the first site of a new CloudFS
  filer serve --dir /var/lib/filer           serve it
  filer status --dir /var/lib/filer          see how it is

{EXIT_CODES}

The settings are in filer.toml in the site's directory; filer check-config checks them."
    )
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a site: the first of a new CloudFS, or one that joins
    #[command(after_help = init::HELP)]
    Init(init::Init),
    /// Serves a site until it is told to stop (SIGTERM or Ctrl-C)
    #[command(after_help = format!("Examples:\n  filer serve --dir /var/lib/filer\n  filer serve --dir /var/lib/filer --config /var/lib/filer/trial.toml\n\n{EXIT_CODES}"))]
    Serve(Serve),
    /// Shows how the CloudFS is: filers, clouds, what is not yet safe
    #[command(after_help = format!("Examples:\n  filer status\n  filer status --watch\n  filer status --json | jq .absorbs_failure\n\n{EXIT_CODES}"))]
    Status(Look),
    /// Shows the two clouds, or changes their roles
    #[command(after_help = format!("Examples:\n  filer cloud list\n  filer cloud failover azure\n  filer cloud failback\n\n{EXIT_CODES}"))]
    Cloud {
        #[command(subcommand)]
        command: CloudCommand,
    },
    /// Shows the filers of the CloudFS, their certificates, and what was removed or revoked; or takes a filer out
    #[command(args_conflicts_with_subcommands = true, after_help = format!("Examples:\n  filer peers\n  filer peers --json\n  filer peers remove fra\n\n{EXIT_CODES}"))]
    Peers {
        #[command(subcommand)]
        command: Option<PeersCommand>,
        #[command(flatten)]
        look: List,
    },
    /// Checks the settings and lists every problem with its line
    #[command(after_help = format!("Examples:\n  filer check-config --dir /var/lib/filer\n  filer check-config new-filer.toml\n\n{EXIT_CODES}"))]
    CheckConfig {
        /// The file; without one, filer.toml in the site's directory
        file: Option<PathBuf>,
        #[command(flatten)]
        dir: Dir,
    },
    /// Signs a request of a new site, or of one that renews, with the authority in the first site's directory
    #[command(after_help = join::SIGN_HELP)]
    Sign(join::Sign),
    /// Asks for another certificate of this site, or puts one in place
    #[command(after_help = renew::HELP)]
    Renew(renew::Renew),
    /// Has every filer refuse a filer's certificates, also before it has joined
    #[command(after_help = revoke::HELP)]
    Revoke(revoke::Revoke),
    /// Writes a shell's completions to the standard output
    #[command(
        after_help = "Examples:\n  filer completions bash > /etc/bash_completion.d/filer\n  filer completions fish > ~/.config/fish/completions/filer.fish"
    )]
    Completions { shell: clap_complete::Shell },
    /// Shows the program's version
    #[command(after_help = "Examples:\n  filer version")]
    Version,
}

/// A site's directory.
#[derive(Args, Clone, Debug)]
pub struct Dir {
    /// The site's directory
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
}

/// Which site to serve.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// The site's directory [default: that of the settings, or the current one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The settings, where they are not filer.toml in the site's directory. Relative paths in them, those that stand at their
    /// defaults too (data, admin.sock), begin in this file's directory
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which filer to ask.
#[derive(Args, Clone, Debug)]
pub struct Door {
    #[command(flatten)]
    dir: Dir,
    /// The filer's admin socket; without it, the one that the settings name
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// How to show a list.
#[derive(Args, Clone, Debug)]
pub struct List {
    #[command(flatten)]
    door: Door,
    /// As JSON, for machines
    #[arg(long)]
    json: bool,
}

/// How to show the status.
#[derive(Args, Clone, Debug)]
pub struct Look {
    #[command(flatten)]
    list: List,
    /// Again each second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// `filer cloud ..`
#[derive(Debug, Subcommand)]
pub enum CloudCommand {
    /// Shows both clouds: state, role, failures, what each has missed
    #[command(after_help = "Examples:\n  filer cloud list\n  filer cloud list --json")]
    List(List),
    /// Makes a cloud active, for the entire CloudFS; refused if it is active already, or misses anything
    ///
    /// The primary cloud does not become active by itself then, until `filer cloud failback`, or until the cloud fails.
    #[command(after_help = format!("Examples:\n  filer cloud failover azure\n  filer cloud failover b\n\n{EXIT_CODES}"))]
    Failover {
        /// The cloud to move to: its name as `filer cloud list` shows it, or a (the primary) or b (the secondary)
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        cloud: String,
        #[command(flatten)]
        how: Move,
    },
    /// Makes the primary cloud active again; refused if it is active already, or misses anything
    #[command(after_help = format!("Examples:\n  filer cloud failback\n\n{EXIT_CODES}"))]
    Failback(Move),
}

/// How the CloudFS is moved to another cloud.
#[derive(Args, Debug)]
pub struct Move {
    #[command(flatten)]
    pub door: Door,
    /// Also to a cloud that does not take and give data now, as this filer sees
    #[arg(long)]
    pub anyway: bool,
}

/// `filer peers ..`
#[derive(Debug, Subcommand)]
pub enum PeersCommand {
    /// Takes a filer out of the CloudFS for good; refused while it alone holds data of files
    ///
    /// Its writes end first. If the removal is not carried through, such as without a majority, it takes none until the
    /// removal is asked for again, or `filer peers keep`.
    #[command(after_help = format!("Examples:\n  filer peers remove fra\n\n{EXIT_CODES}"))]
    Remove {
        /// The filer's name
        name: String,
        #[command(flatten)]
        door: Door,
    },
    /// Lets a filer go on whose removal was begun and not carried through; not while it is being removed elsewhere
    #[command(after_help = format!("Examples:\n  filer peers keep fra\n\n{EXIT_CODES}"))]
    Keep {
        /// The filer's name
        name: String,
        #[command(flatten)]
        door: Door,
    },
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The settings are refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The site's directory cannot be used.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// Keys and certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The rules forbid it.
    #[error("{0}")]
    Refused(String),
    /// The filer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system.
    #[error("{what}")]
    System { what: String, source: std::io::Error },
}

impl CliError {
    /// Whether all that went wrong is that nobody reads the answer any more, as behind `| head`.
    pub fn reader_left(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// The exit code that says so; see the help.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) | Self::Site(SiteError::Missing { .. } | SiteError::Config(_)) => 2,
            // What was given is no request, or asks for a length of time that no certificate may have.
            Self::Identity(IdentityError::Request { .. } | IdentityError::Validity { .. }) => 2,
            Self::Refused(_) => 3,
            Self::Client(
                ClientError::Unreachable { .. } | ClientError::WentAway { .. } | ClientError::TimedOut { .. },
            ) => 4,
            Self::Client(ClientError::Refused(Refusal::Rules(_))) => 3,
            Self::Client(ClientError::Refused(Refusal::NotFound(_) | Refusal::Request(_))) => 2,
            Self::Client(ClientError::Refused(Refusal::Later(_))) => 5,
            _ => 1,
        }
    }
}

/// Does what a command other than `serve` says. `out` gets what it prints.
pub fn run(command: Command, out: &mut dyn Write) -> Result<(), CliError> {
    match command {
        Command::Init(init) => init::run(init, out),
        Command::Sign(sign) => join::sign(sign, out),
        Command::Renew(renew) => renew::run(renew, out),
        Command::CheckConfig { file, dir } => check_config(file, &dir, out),
        Command::Version => say(out, &format!("filer {}", env!("CARGO_PKG_VERSION"))),
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "filer", &mut script);
            out.write_all(&script).map_err(unwritable)
        }
        Command::Serve(_) => Err(CliError::Usage("filer serve is not run from here".into())),
        asking => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|source| CliError::System { what: "starting".into(), source })?;
            runtime.block_on(ask(asking, out))
        }
    }
}

/// The settings and directory of the site that `filer serve` is to serve.
pub fn site_of(serve: &Serve) -> Result<(Config, SiteDir), CliError> {
    let beside = serve.config.as_deref().and_then(Path::parent).filter(|parent| !parent.as_os_str().is_empty());
    let dir = serve.dir.as_deref().or(beside).unwrap_or(Path::new("."));
    let site_dir = site_dir(dir)?;
    let site = site_dir.site()?;
    let path = serve.config.clone().unwrap_or_else(|| site_dir.config_path());
    let config = Config::load_to_serve(&path, Some(&site.name), site_dir.has_served()).map_err(SiteError::from)?;
    Ok((config, site_dir))
}

/// The exit code of a failed command.
pub fn exit_code(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    ExitCode::from(error.downcast_ref::<CliError>().map_or(1, CliError::exit_code))
}

fn site_dir(dir: &Path) -> Result<SiteDir, CliError> {
    SiteDir::new(dir).map_err(|source| CliError::System { what: format!("finding {}", dir.display()), source })
}

/// The site in `dir`, which must be the CloudFS's first: the authority is there. `what` is done there alone.
fn first_site(dir: &SiteDir, what: &str) -> Result<SiteFile, CliError> {
    let site = dir.site()?;
    if site.first {
        return Ok(site);
    }
    let why = format!("{} has no authority: {what} at the CloudFS's first site", dir.root().display());
    Err(CliError::Refused(why))
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), CliError> {
    writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()).map_err(unwritable)
}

fn unwritable(source: std::io::Error) -> CliError {
    CliError::System { what: "writing the answer".into(), source }
}

fn check_config(file: Option<PathBuf>, dir: &Dir, out: &mut dyn Write) -> Result<(), CliError> {
    let (path, site) = match file {
        Some(file) => (file, None),
        None => {
            let site_dir = site_dir(&dir.dir)?;
            // Where no site was made yet, any name will do.
            (site_dir.config_path(), site_dir.site().ok().map(|site| site.name))
        }
    };
    let config = Config::load_to_serve(&path, site.as_deref(), false)?;
    let place = |entry: &crate::config::CloudEntry| format!("{} ({})", entry.name, entry.settings.place());
    let (primary, secondary) = (place(&config.clouds.primary), place(&config.clouds.secondary));
    say(out, &format!("{} is good: filer {}, clouds {primary} and {secondary}", path.display(), config.name))
}

/// The client for a filer's admin socket.
fn client(door: &Door) -> Result<AdminClient, CliError> {
    match &door.socket {
        Some(socket) => Ok(AdminClient::new(socket)),
        None => {
            let site_dir = site_dir(&door.dir.dir)?;
            site_dir.site()?;
            client_of(&site_dir)
        }
    }
}

/// The client for the filer of a site.
fn client_of(site_dir: &SiteDir) -> Result<AdminClient, CliError> {
    let (socket, warning) = site_dir.admin_socket()?;
    if let Some(warning) = warning {
        eprintln!("filer: {warning}");
    }
    Ok(AdminClient::new(&socket))
}

async fn ask(command: Command, out: &mut dyn Write) -> Result<(), CliError> {
    match command {
        Command::Status(look) => status(look, out).await,
        Command::Cloud { command: CloudCommand::List(list) } => {
            let status = client(&list.door)?.status().await?;
            let text = if list.json { json(&status.clouds) } else { page::clouds(&status) };
            say(out, &text)
        }
        Command::Cloud { command: CloudCommand::Failover { cloud, how } } => {
            say(out, &client(&how.door)?.failover(&cloud, how.anyway).await?)
        }
        Command::Cloud { command: CloudCommand::Failback(how) } => {
            say(out, &client(&how.door)?.failback(how.anyway).await?)
        }
        Command::Peers { command: Some(PeersCommand::Remove { name, door }), .. } => {
            say(out, &client(&door)?.remove_peer(&name).await?)
        }
        Command::Peers { command: Some(PeersCommand::Keep { name, door }), .. } => {
            say(out, &client(&door)?.keep_peer(&name).await?)
        }
        Command::Peers { command: None, look } => {
            let status = client(&look.door)?.status().await?;
            let lists = [page::peers, page::certificates, page::removed, page::revoked];
            let text = if look.json { json(&Peers::of(&status)) } else { lists.map(|list| list(&status)).concat() };
            say(out, &text)
        }
        Command::Revoke(revoke) => revoke::run(revoke, out).await,
        other => Err(CliError::Usage(format!("{other:?} asks no filer"))),
    }
}

/// What `filer peers --json` shows.
#[derive(serde::Serialize)]
struct Peers<'a> {
    /// This one first.
    filers: &'a [Peer],
    /// Ids of those that were removed: neither they nor their names come back.
    removed: &'a [String],
    /// Certificates that are refused before their end.
    revoked: &'a [RevokedRow],
}

impl<'a> Peers<'a> {
    fn of(status: &'a Status) -> Self {
        Self { filers: &status.peers, removed: &status.removed_filers, revoked: &status.revoked }
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("plain data has a JSON form")
}

async fn status(look: Look, out: &mut dyn Write) -> Result<(), CliError> {
    let client = client(&look.list.door)?;
    let text = |status: &Status| match (look.list.json, look.watch) {
        (true, true) => serde_json::to_string(status).expect("plain data has a JSON form"),
        (true, false) => json(status),
        // Before all else: nothing of the page is of use to a filer that was removed.
        (false, _) => match &status.removed {
            Some(why) => format!("REMOVED: {why}\n\n{}", page::status(status)),
            None => page::status(status),
        },
    };
    if !look.watch {
        return say(out, &text(&client.status().await?));
    }
    let clear = if std::io::stdout().is_terminal() && !look.list.json { "\x1b[2J\x1b[H" } else { "" };
    let mut ticks = tokio::time::interval(Duration::from_millis(WATCH_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A filer that restarts is waited for.
        let shown = match client.status().await {
            Ok(status) => text(&status),
            Err(e) => chain(&e),
        };
        say(out, &format!("{clear}{shown}"))?;
    }
}

/// An address from the command line.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not an address with a port, such as 127.0.0.1:7400"))
}
