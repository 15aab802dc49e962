//! The status as a page for people.

use crate::admin::{
    Status,
    status::{Certificate, Cloud, Dead, Failing, Peer, RevokedRow, Role},
};
use mesh::words::{counted, span};
use storage::cloudfs::CloudState;

/// Decisions on the page, at most; `--json` has more.
const DECISIONS_MAX: usize = 5;

/// The whole page.
pub(super) fn status(status: &Status) -> String {
    let mut page = head(status);
    page += &format!("\nFILERS\n{}\nCLOUDS\n{}", peers(status), clouds(status));
    let (staging, cache) = (&status.staging, &status.cache);
    let oldest =
        staging.oldest_unprotected_ms.map_or("nothing unprotected".into(), |ms| format!("oldest byte {}", span(ms)));
    page += &format!(
        "\nTHIS FILER\n  staging   {} of {} in {}, {oldest}\n  cache     {} in memory, {} on disk; {}, {} misses, {} from the standby cloud\n",
        size(staging.bytes),
        size(staging.bytes_max),
        counted(staging.segments, "segment"),
        size(cache.memory_bytes),
        size(cache.disk_bytes),
        counted(cache.hits, "hit"),
        cache.misses,
        counted(cache.fallback_reads, "read"),
    );
    let tasks = status.tasks.iter().map(|task| vec![task.name.clone(), task.state.clone(), span(task.since_ms)]);
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
                format!("{} ago", span(decision.ms_ago)),
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
        (false, Some(ms)) => {
            format!("NO, for {}: clients wait, and nothing can be decided; filer peers shows who is missing", span(ms))
        }
        (false, None) => "NO: clients wait, and nothing can be decided; filer peers shows who is missing".to_string(),
    };
    let certificate = match &status.certificate {
        Certificate { revoked: true, .. } => "IS REVOKED: peers refuse this filer".into(),
        Certificate { ends_soon: false, .. } => String::new(),
        Certificate { left_ms: 0, .. } => "HAS ENDED: peers refuse this filer".into(),
        Certificate { left_ms, .. } => format!("ends in {}", span(*left_ms)),
    };
    let certificate = match &certificate[..] {
        "" => String::new(),
        how => format!("  certificate                 {how}; see filer renew --help\n"),
    };
    let is_held = status.clouds.iter().any(|cloud| cloud.held_by_operator);
    let held = if is_held { "; held by an operator: go back with filer cloud failback" } else { "" };
    let preferred = match &status.preferred {
        preferred if *preferred == status.active => String::new(),
        preferred => format!(" (primary is {preferred}){held}"),
    };
    let leader = status.leader.as_deref().unwrap_or("none known");
    let serving = &status.serving;
    let reads = match (serving.may_be_old, serving.confirmed_ms_ago) {
        (false, _) => String::new(),
        (true, Some(ms)) => {
            format!("  what clients read           MAY BE OLD: the last {} of other sites may be missing\n", span(ms))
        }
        (true, None) => "  what clients read           MAY BE OLD\n".to_string(),
    };
    let undecided = match (serving.undecided_changes, serving.oldest_undecided_ms) {
        (0, _) => String::new(),
        (changes, oldest) => format!(
            "  undecided changes           {changes}, the oldest for {}: their clients wait for a majority\n",
            span(oldest.unwrap_or(0))
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
         \x20 active cloud                {}{preferred}\n\
         \x20 epoch                       {}\n\
         \x20 majority                    {majority}\n\
         \x20 leader                      {leader}, term {}\n{reads}{undecided}{undeleted}{certificate}",
        status.cloudfs,
        status.filer.name,
        status.filer.id,
        status.version,
        span(status.up_ms),
        if status.active.is_empty() { "not known yet" } else { &status.active },
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
            peer.heard_ms_ago.map_or_else(unknown, |ms| format!("{} ago", span(ms))),
            peer.rtt_us.map_or_else(unknown, |us| {
                let far = if peer.far { ", TOO LONG: raise mesh.election_min and mesh.election_max" } else { "" };
                format!("{}.{} ms{far}", us / 1_000, us % 1_000 / 100)
            }),
            peer.staged_bytes.map_or_else(unknown, size),
            peer.oldest_unprotected_ms.map_or_else(unknown, span),
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

/// By which certificate each filer serves.
pub(super) fn certificates(status: &Status) -> String {
    let row = |peer: &Peer| {
        let (serial, valid) = match &peer.certificate {
            Some(Certificate { serial, left_ms, ends_soon, revoked }) => {
                let valid = match (revoked, left_ms, ends_soon) {
                    (true, ..) => "IS REVOKED".into(),
                    (_, 0, _) => "HAS ENDED".into(),
                    (_, ms, true) => format!("{}: RENEW IT", span(*ms)),
                    (_, ms, false) => span(*ms),
                };
                (serial.clone(), valid)
            }
            None => ("-".into(), "-".to_string()),
        };
        vec![peer.name.clone(), peer.id.clone(), serial, valid]
    };
    let rows = status.peers.iter().map(row).collect();
    format!("\nCERTIFICATES\n{}", table(&["NAME", "ID", "SERIAL NUMBER", "VALID FOR"], rows))
}

/// The filers that were removed, whose names the record does not keep; nothing where there are none.
pub(super) fn removed(status: &Status) -> String {
    if status.removed_filers.is_empty() {
        return String::new();
    }
    let rows = status.removed_filers.iter().map(|id| vec![id.clone()]).collect();
    format!("\nREMOVED FILERS\n{}", table(&["ID"], rows))
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
        let state = match (cloud.state, cloud.failing) {
            (CloudState::Healthy, None) => "healthy",
            (CloudState::Healthy, Some(_)) => "healthy, FAILING",
            (CloudState::Failed, _) => "FAILED",
            (CloudState::Resyncing, None) => "resyncing",
            (CloudState::Resyncing, Some(_)) => "resyncing, FAILING",
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
            span(cloud.since_ms_ago),
            format!("{} ({} in all)", cloud.failures_now, cloud.failures_total),
            format!("{}, {}", counted(cloud.missed_puts, "put"), counted(cloud.missed_deletes, "delete")),
            cloud.oldest_miss_ms.map_or("-".into(), span),
            cloud.oldest_unprotected_ms.map_or("-".into(), span),
        ]
    };
    let head = ["NAME", "KIND", "STATE", "ROLE", "SINCE", "FAILURES", "MISSED", "OLDEST MISS", "OLDEST UNPROTECTED"];
    let mut text = table(&head, status.clouds.iter().map(row).collect());
    for cloud in &status.clouds {
        if let Some(failing) = &cloud.failing {
            text += &format!("  {}: {}\n", cloud.name, failing_words(failing));
        }
        if let Some(why) = &cloud.why {
            text += &format!("  {}: {why}\n", cloud.name);
        }
        if cloud.state == CloudState::Failed {
            let reached = if cloud.reached_by.is_empty() { "no filer".into() } else { cloud.reached_by.join(", ") };
            text += &format!("  {}: reached by {reached}\n", cloud.name);
        }
        if let Some(resync) = &cloud.resync {
            text += &format!(
                "  {}: resync for {}, {} left, {} ({}) done by this filer\n",
                cloud.name,
                span(resync.since_ms),
                counted(resync.rows_left, "row"),
                counted(resync.rows_done, "row"),
                size(resync.bytes_done),
            );
        }
        if cloud.held_by_operator {
            let preferred = &status.preferred;
            text += &format!(
                "  {}: held active by an operator: {preferred} does not become active by itself; go back with filer cloud failback\n",
                cloud.name
            );
        }
    }
    text
}

/// How a cloud that has not failed yet is failing.
fn failing_words(failing: &Failing) -> String {
    let Failing { failures, trips_at, since_ms_ago, last_ms_ago, pieces } = failing;
    let more = match pieces.saturating_sub(1) {
        0 => String::new(),
        more => format!("; {} more", counted(more, "piece")),
    };
    format!(
        "failing for {} ({failures} of {trips_at} failures in a row on one piece, the last {} ago{more})",
        span(*since_ms_ago),
        span(*last_ms_ago)
    )
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
    fn sizes_read_well() {
        for (bytes, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_failing_cloud_is_told_by_how_near_its_trip_is() {
        let failing = Failing { failures: 87, trips_at: 160, since_ms_ago: 72_000, last_ms_ago: 900, pieces: 1 };
        let mut aws =
            Cloud { failing: Some(failing), why: Some("reset".into()), ..Cloud::new("aws", "s3", Role::Active) };
        let list = |aws: &Cloud| clouds(&Status { clouds: vec![aws.clone()], ..Status::default() });
        let page = list(&aws);
        assert!(page.contains("aws   s3    healthy, FAILING  active"), "{page}");
        let words = "  aws: failing for 1 min 12 s (87 of 160 failures in a row on one piece, the last 900 ms ago)\n";
        assert!(page.contains(words) && page.contains("  aws: reset\n"), "{page}");
        aws.failing = Some(Failing { pieces: 3, ..failing });
        assert!(list(&aws).contains("the last 900 ms ago; 2 pieces more)"), "{}", list(&aws));
        aws.failing = None;
        assert!(!list(&aws).contains("ailing") && !list(&aws).contains("FAILING"), "{}", list(&aws));
    }

    #[test]
    fn what_an_operator_holds_is_told_with_the_way_back() {
        let azure = Cloud { held_by_operator: true, ..Cloud::new("azure", "azure", Role::Active) };
        let aws = Cloud::new("aws", "s3", Role::Standby);
        let (active, preferred) = ("azure".to_string(), "aws".to_string());
        let mut held = Status { active, preferred, clouds: vec![aws, azure], ..Status::default() };
        let line = "active cloud                azure (primary is aws); held by an operator: go back with filer cloud failback\n";
        assert!(status(&held).contains(line), "{}", status(&held));
        let line = "  azure: held active by an operator: aws does not become active by itself; go back with filer cloud failback\n";
        assert!(clouds(&held).contains(line), "{}", clouds(&held));
        held.clouds[1].held_by_operator = false;
        assert!(status(&held).contains("azure (primary is aws)\n"), "{}", status(&held));
        assert!(!status(&held).contains("held"), "{}", status(&held));
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
            "certificate                 ends in 12 d; see filer renew --help",
            "6      0.0.9    NO: timed out",
            "resync for 5 s, 42 rows left, 8 rows (8.0 MiB) done by this filer",
            "1 min 1 s ago  epoch 7  carried  resync of aws began, by fra",
        ] {
            assert!(page.contains(part), "{part:?} in\n{page}");
        }
        assert!(revoked(&crate::admin::tests::troubled()).contains("old   0000002c  4f00"));
        let shown = certificates(&crate::admin::tests::troubled());
        assert!(shown.contains("ams   0000002a  -              -\n"), "{shown}");
        assert!(shown.contains("fra   0000002b  4e02           12 d: RENEW IT\n"), "{shown}");
        let removed = removed(&crate::admin::tests::troubled());
        assert_eq!(removed, "\nREMOVED FILERS\n  ID\n  0000002c\n");
        assert!(page.lines().all(|line| line.trim_end() == line), "no blanks at the ends");
    }
}
