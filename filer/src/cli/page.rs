//! The status as a page for people.

use crate::admin::{
    Status,
    status::{Certificate, Cloud, Dead, Peer, RevokedRow, Role},
};
use storage::cloudfs::CloudState;

/// Decisions on the page, at most; `--json` has more.
const DECISIONS_MAX: usize = 5;

/// The whole page.
pub(super) fn status(status: &Status) -> String {
    let mut page = head(status);
    page += &format!("\nFILERS\n{}\nCLOUDS\n{}", peers(status), clouds(status));
    let (staging, cache) = (&status.staging, &status.cache);
    let oldest =
        staging.oldest_unprotected_ms.map_or("nothing unprotected".into(), |ms| format!("oldest byte {}", age(ms)));
    page += &format!(
        "\nTHIS FILER\n  staging   {} of {} in {} segments, {oldest}\n  cache     {} in memory, {} on disk; {} hits, {} misses, {} reads from the standby cloud\n",
        size(staging.bytes),
        size(staging.bytes_max),
        staging.segments,
        size(cache.memory_bytes),
        size(cache.disk_bytes),
        cache.hits,
        cache.misses,
        cache.fallback_reads,
    );
    let tasks = status.tasks.iter().map(|task| vec![task.name.clone(), task.state.clone(), age(task.since_ms)]);
    if !status.tasks.is_empty() {
        page += &format!("\nPARTS\n{}", table(&["NAME", "STATE", "SINCE"], tasks.collect()));
    }
    if !status.decisions.is_empty() {
        page += "\nLAST DECISIONS\n";
        let rows = status.decisions.iter().take(DECISIONS_MAX).map(|decision| {
            let word = if decision.carried { "carried" } else { "refused" };
            let ballots =
                if decision.ballots.is_empty() { String::new() } else { format!(" ({})", decision.ballots.join("; ")) };
            vec![
                format!("{} ago", age(decision.ms_ago)),
                format!("epoch {}", decision.epoch),
                word.into(),
                format!("{}, by {}{ballots}", decision.text, decision.filer),
            ]
        });
        page += &table(&[], rows.collect());
    }
    page
}

fn head(status: &Status) -> String {
    let absorbs = match (status.absorbs_failure, &status.why_not) {
        (true, _) => "yes".into(),
        (false, Some(why)) => format!("NO: {why}"),
        (false, None) => "NO".to_string(),
    };
    let majority = match (status.has_majority, status.majority_ms_ago) {
        (true, _) => "yes".into(),
        (false, Some(ms)) => format!("NO, for {}: writes stay in staging, and nothing can be decided", age(ms)),
        (false, None) => "NO: writes stay in staging, and nothing can be decided".to_string(),
    };
    let certificate = match &status.certificate {
        Certificate { revoked: true, .. } => "IS REVOKED: peers refuse this filer".into(),
        Certificate { ends_soon: false, .. } => String::new(),
        Certificate { left_ms: 0, .. } => "HAS ENDED: peers refuse this filer".into(),
        Certificate { left_ms, .. } => format!("ends in {}", age(*left_ms)),
    };
    let certificate = match &certificate[..] {
        "" => String::new(),
        how => format!("  certificate                 {how}; see filer renew --help\n"),
    };
    let leader = status.leader.as_deref().unwrap_or("none known");
    let serving = &status.serving;
    let reads = match (serving.may_be_old, serving.confirmed_ms_ago) {
        (false, _) => String::new(),
        (true, Some(ms)) => {
            format!("  what clients read           MAY BE OLD: the last {} of other sites may be missing\n", age(ms))
        }
        (true, None) => "  what clients read           MAY BE OLD\n".to_string(),
    };
    let undecided = match (serving.undecided_changes, serving.oldest_undecided_ms) {
        (0, _) => String::new(),
        (changes, oldest) => format!(
            "  undecided changes           {changes}, the oldest for {}: their clients wait for a majority\n",
            age(oldest.unwrap_or(0))
        ),
    };
    let undeleted = match &status.dead {
        Dead { undeleted: 0, .. } => String::new(),
        Dead { segments, undeleted, why } => format!(
            "  dead segments               {segments}, and {undeleted} of them CANNOT BE DELETED: {}\n",
            why.as_deref().unwrap_or("unknown")
        ),
    };
    format!(
        "CloudFS {}, seen by filer {} ({}, version {}, up {})\n\
         \x20 absorbs a cloud's failure   {absorbs}\n\
         \x20 active cloud                {}{}\n\
         \x20 epoch                       {}\n\
         \x20 majority                    {majority}\n\
         \x20 leader                      {leader}, term {}\n{reads}{undecided}{undeleted}{certificate}",
        status.cloudfs,
        status.filer.name,
        status.filer.id,
        status.version,
        age(status.up_ms),
        if status.active.is_empty() { "not known yet" } else { &status.active },
        if status.active == status.preferred { String::new() } else { format!(" (primary is {})", status.preferred) },
        status.epoch,
        status.term,
    )
}

/// The filers.
pub(super) fn peers(status: &Status) -> String {
    let row = |peer: &Peer| {
        let session = match (peer.this, peer.connected, &peer.last_error) {
            (true, ..) => "this filer".into(),
            (_, true, _) => "connected".into(),
            (_, false, Some(why)) => format!("NO: {why}"),
            (_, false, None) => "NO".to_string(),
        };
        let role = match (peer.leader, peer.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "joining",
        };
        let leaving = if peer.leaving { ", TAKES NO WRITES: is being removed" } else { "" };
        let unknown = || "-".to_string();
        vec![
            peer.name.clone(),
            peer.id.clone(),
            peer.address.clone(),
            format!("{role}{leaving}"),
            peer.heard_ms_ago.map_or_else(unknown, |ms| format!("{} ago", age(ms))),
            peer.rtt_us.map_or_else(unknown, |us| format!("{}.{} ms", us / 1_000, us % 1_000 / 100)),
            peer.staged_bytes.map_or_else(unknown, size),
            peer.oldest_unprotected_ms.map_or_else(unknown, age),
            peer.epoch.map_or_else(unknown, |epoch| epoch.to_string()),
            peer.version.clone().unwrap_or_else(unknown),
            session,
        ]
    };
    let head = [
        "NAME",
        "ID",
        "ADDRESS",
        "ROLE",
        "HEARD",
        "RTT",
        "STAGED",
        "OLDEST UNPROTECTED",
        "EPOCH",
        "VERSION",
        "SESSION",
    ];
    table(&head, status.peers.iter().map(row).collect())
}

/// The revoked certificates; nothing where there are none.
pub(super) fn revoked(status: &Status) -> String {
    if status.revoked.is_empty() {
        return String::new();
    }
    let row = |row: &RevokedRow| vec![row.filer.name.clone(), row.filer.id.clone(), row.serial.clone()];
    let rows = status.revoked.iter().map(row).collect();
    format!("\nREVOKED CERTIFICATES\n{}", table(&["NAME", "ID", "SERIAL NUMBER"], rows))
}

/// The clouds, with what is wrong with each.
pub(super) fn clouds(status: &Status) -> String {
    let row = |cloud: &Cloud| {
        let state = match cloud.state {
            CloudState::Healthy => "healthy",
            CloudState::Failed => "FAILED",
            CloudState::Resyncing => "resyncing",
        };
        let role = match (cloud.role, cloud.name == status.preferred) {
            (Role::Active, true) => "active, primary",
            (Role::Active, false) => "active",
            (Role::Standby, true) => "standby, primary",
            (Role::Standby, false) => "standby",
        };
        vec![
            cloud.name.clone(),
            cloud.kind.clone(),
            state.into(),
            role.into(),
            age(cloud.since_ms_ago),
            format!("{} ({} in all)", cloud.failures_now, cloud.failures_total),
            format!("{} puts, {} deletes", cloud.missed_puts, cloud.missed_deletes),
            cloud.oldest_miss_ms.map_or("-".into(), age),
            cloud.oldest_unprotected_ms.map_or("-".into(), age),
        ]
    };
    let head = ["NAME", "KIND", "STATE", "ROLE", "SINCE", "FAILURES", "MISSED", "OLDEST MISS", "OLDEST UNPROTECTED"];
    let mut text = table(&head, status.clouds.iter().map(row).collect());
    for cloud in &status.clouds {
        if let Some(why) = &cloud.why {
            text += &format!("  {}: {why}\n", cloud.name);
        }
        if cloud.state == CloudState::Failed {
            let reached = if cloud.reached_by.is_empty() { "no filer".into() } else { cloud.reached_by.join(", ") };
            text += &format!("  {}: reached by {reached}\n", cloud.name);
        }
        if let Some(resync) = &cloud.resync {
            text += &format!(
                "  {}: resync for {}, {} rows left, {} rows ({}) done by this filer\n",
                cloud.name,
                age(resync.since_ms),
                resync.rows_left,
                resync.rows_done,
                size(resync.bytes_done),
            );
        }
    }
    text
}

/// Columns as wide as their widest cell, the last one open.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![];
    if !head.is_empty() {
        lines.push(head.iter().map(|cell| cell.to_string()).collect());
    }
    lines.extend(rows);
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += &format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// An age in words: two units at most.
fn age(ms: u64) -> String {
    let (seconds, minutes, hours, days) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{seconds}.{} s", ms % 1_000 / 100),
        60_000..3_600_000 => format!("{minutes} min {} s", seconds % 60),
        3_600_000..86_400_000 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A size in words.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let steps = (bytes.max(1).ilog2() / 10) as usize;
    if steps == 0 {
        return format!("{bytes} B");
    }
    format!("{:.1} {}", bytes as f64 / (1u64 << (10 * steps)) as f64, units[steps])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_read_well() {
        for (ms, text) in
            [(7, "7 ms"), (1_540, "1.5 s"), (61_000, "1 min 1 s"), (7_500_000, "2 h 5 min"), (90_000_000, "1 d 1 h")]
        {
            assert_eq!(age(ms), text);
        }
        for (bytes, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn the_page_says_what_matters() {
        let page = status(&crate::admin::tests::troubled());
        for part in [
            "absorbs a cloud's failure   NO: aws is resyncing: 42 rows of its missed-write log are left",
            "active cloud                azure (primary is aws)",
            "NO: timed out",
            "voter, TAKES NO WRITES: is being removed",
            "oldest byte 1.5 s",
            "40 puts, 2 deletes",
            "certificate                 ends in 12 d 0 h; see filer renew --help",
            "6      0.0.9    NO: timed out",
            "resync for 5.0 s, 42 rows left, 8 rows (8.0 MiB) done by this filer",
            "1 min 1 s ago  epoch 7  carried  resync of aws began, by fra",
        ] {
            assert!(page.contains(part), "{part:?} in\n{page}");
        }
        assert!(revoked(&crate::admin::tests::troubled()).contains("old   0000002c  4f00"));
        assert!(page.lines().all(|line| line.trim_end() == line), "no blanks at the ends");
    }
}
