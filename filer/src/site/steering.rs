//! What the operator's door lets an operator do at this site: move the CloudFS from cloud to cloud, take filers and
//! certificates out, put a renewed certificate into use.
//!
//! Owns: the door's way into the site, the names that operators give clouds and filers, how a change that was not made is
//! told. Does not own: what is shown (`first_page`, `lists`), what is decided (`actors`, `filer::removal`, `mesh`).

mod first_page;
mod lists;

use super::{Renewal, greeting::Greetings};
use crate::{
    actors::{connector::Probe, mesh::Decide},
    admin::{Extra, FileRow, Page, Refusal, SegmentRow, Status, Steering, status::DecisionRow},
    cloud_names,
    config::Config,
    door::DoorError,
    filer::{Filer, RemovalError},
    nfs::Counters,
    wire::{self, FilerCall, FilerReply},
};
use mesh::{
    FilerId,
    consensus::{MembershipError, ProposeError, Revoked},
    net::QuicMesh,
    words::counted,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use storage::{
    cloudfs::{Answer, BY_OPERATOR, CloudState, OpBody, Roles},
    ids::{CloudId, Epoch},
};

/// How long a change of the members, or of who is shut out, may take.
const CHANGE_MAX: Duration = Duration::from_secs(15);
/// How long a peer may take to say with which certificate it serves.
const CERTIFICATE_MAX: Duration = Duration::from_secs(5);

/// The site as its operator's door sees it.
pub(super) struct Site {
    filer: Filer,
    mesh: Arc<QuicMesh>,
    renewal: Arc<Mutex<Renewal>>,
    greetings: Arc<Greetings>,
    config: Config,
    nfs: Option<Arc<Counters>>,
}

impl Site {
    pub fn new(
        filer: Filer,
        mesh: Arc<QuicMesh>,
        renewal: Arc<Mutex<Renewal>>,
        greetings: Arc<Greetings>,
        config: Config,
        nfs: Option<Arc<Counters>>,
    ) -> Self {
        Self { filer, mesh, renewal, greetings, config, nfs }
    }

    fn cloud_name(&self, cloud: CloudId) -> &str {
        &self.config.clouds.entry(cloud).name
    }

    fn names(&self) -> BTreeMap<FilerId, String> {
        let status = self.filer.consensus.status();
        let members = status.voters.into_iter().chain(status.learners);
        members.map(|(id, member)| (id, member.name)).collect()
    }

    /// The words of the state machine, with the operator's names for the clouds.
    fn named(&self, text: &str) -> String {
        cloud_names::named(text, CloudId::BOTH.map(|cloud| self.cloud_name(cloud)))
    }

    fn roles(&self) -> Result<Roles, Refusal> {
        self.filer.roles.get().ok_or_else(|| Refusal::Later("the roles are not known yet".into()))
    }

    /// The filer that an operator names, or gives the id of.
    fn filer_called(&self, name: &str) -> Result<(FilerId, String), Refusal> {
        let mut named = self.names().into_iter().filter(|(id, n)| n == name || id.to_string() == name);
        match (named.next(), named.next()) {
            (None, _) => Err(Refusal::NotFound(format!("no filer is called {name}; see `filer peers`"))),
            (Some(one), None) => Ok(one),
            _ => Err(Refusal::Request(format!("several filers are called {name}; give the id"))),
        }
    }

    async fn decide(&self, body: OpBody) -> Result<Roles, Refusal> {
        let answer = self.filer.actors.mesh.send(Decide(body)).await.map_err(failed)?;
        match answer {
            Ok(Answer::Roles(roles)) => Ok(roles),
            Ok(other) => Err(failed(format!("an answer of another kind: {other:?}"))),
            Err(DoorError::Refused(error)) => Err(Refusal::Rules(self.named(&error.to_string()))),
            Err(error) => Err(kind_of_door(&error)(error.to_string())),
        }
    }

    /// Makes a cloud active, by the operator's wish; unless it is meant `anyway`, only one that takes and gives data now.
    async fn activate(&self, to: CloudId, anyway: bool) -> Result<String, Refusal> {
        let roles = self.roles()?;
        // What the rules refuse is refused by their words.
        let may_move = roles.active != to && roles.cloud(to).state == CloudState::Healthy;
        if may_move && !anyway {
            let probe = Probe { filer: self.filer.who.me };
            if let Err(error) = self.filer.actors.connectors[to.index()].send(probe).await.map_err(failed)? {
                return Err(Refusal::Rules(format!(
                    "cloud {} does not take and give data now, as this filer sees: {error}. --anyway moves to it all the same",
                    self.cloud_name(to)
                )));
            }
        }
        let epoch = roles.epoch;
        let roles = self.decide(OpBody::Activate { to, epoch, by: BY_OPERATOR.into() }).await?;
        let [active, preferred] = [roles.active, roles.preferred].map(|cloud| self.cloud_name(cloud));
        Ok(activated(active, roles.epoch, roles.held_by_operator.then_some(preferred)))
    }
}

#[async_trait::async_trait]
impl Steering for Site {
    async fn status(&self) -> Status {
        self.first_page().await
    }

    async fn extra_metrics(&self) -> Vec<Extra> {
        self.numbers()
    }

    async fn failover(&self, cloud: &str, anyway: bool) -> Result<String, Refusal> {
        let to = cloud_called(cloud, CloudId::BOTH.map(|cloud| self.cloud_name(cloud)))?;
        self.activate(to, anyway).await
    }

    async fn failback(&self, anyway: bool) -> Result<String, Refusal> {
        let to = self.roles()?.preferred;
        self.activate(to, anyway).await
    }

    async fn remove_peer(&self, name: &str) -> Result<String, Refusal> {
        let (id, name) = self.filer_called(name)?;
        if id == self.filer.who.me {
            return Err(Refusal::Request("a filer is removed at another filer, not at itself".into()));
        }
        // A task of its own: an operator who goes away must not leave that filer without writes.
        let filer = self.filer.clone();
        let removal = tokio::spawn(async move { filer.remove_filer(id, CHANGE_MAX).await });
        removal.await.map_err(failed)?.map_err(|error| not_removed(&name, error))?;
        Ok(format!("filer {name} ({id}) is removed; its certificate is refused from now on"))
    }

    async fn keep_peer(&self, name: &str) -> Result<String, Refusal> {
        let (id, name) = self.filer_called(name)?;
        self.filer.keep_filer(id).await.map_err(|error| kind_of_door(&error)(error.to_string()))?;
        Ok(format!("filer {name} ({id}) is not being removed; it takes writes"))
    }

    async fn revoke(&self, filer: FilerId, name: &str, serial: &str) -> Result<String, Refusal> {
        let revoked = Revoked { serial: serial.into(), filer, name: name.into() };
        self.filer.consensus.revoke(revoked, CHANGE_MAX).await.map_err(refusal)?;
        Ok(format!("certificate {serial} of {name} ({filer}) is refused by every filer from now on"))
    }

    async fn use_certificate(&self, serial: &str) -> Result<String, Refusal> {
        self.renewal.lock().expect("no look at the certificate panics").take(&self.mesh);
        let identity = self.mesh.identity();
        if identity.serial() != serial {
            let shown = identity.serial();
            return Err(failed(format!(
                "the filer serves with certificate {shown}, and not with {serial}: see its log"
            )));
        }
        Ok(format!("the filer serves with certificate {serial} from now on"))
    }

    async fn certificate_of(&self, filer: FilerId) -> Result<String, Refusal> {
        if filer == self.filer.who.me {
            return Ok(self.mesh.identity().serial().into());
        }
        match wire::call(&*self.mesh, filer, &FilerCall::Certificate, CERTIFICATE_MAX).await {
            Ok((FilerReply::Certificate { serial }, _)) => Ok(serial),
            Ok(_) => Err(failed(format!("filer {filer} answers something else"))),
            Err(error) => Err(Refusal::Later(error.to_string())),
        }
    }

    async fn segments(&self, after: Option<String>, limit: usize) -> Result<Page<SegmentRow>, Refusal> {
        self.segment_rows(after, limit)
    }

    async fn files(&self, after: Option<String>, limit: usize) -> Result<Page<FileRow>, Refusal> {
        self.file_rows(after, limit)
    }

    async fn decisions(&self) -> Result<Vec<DecisionRow>, Refusal> {
        self.decision_rows(storage::cloudfs::DECISIONS_KEPT_MAX)
    }
}

/// A change of the members that was not made, for the operator.
fn refusal(error: MembershipError) -> Refusal {
    kind_of(&error)(error.to_string())
}

fn kind_of(error: &MembershipError) -> fn(String) -> Refusal {
    match error {
        MembershipError::Unknown(_) => Refusal::NotFound,
        MembershipError::AlreadyStarted
        | MembershipError::Removed(_)
        | MembershipError::LastVoter(_)
        | MembershipError::Taken { .. } => Refusal::Rules,
        MembershipError::Malformed(_) => Refusal::Request,
        MembershipError::NotCaughtUp { .. } => Refusal::Later,
        MembershipError::Propose(error) => match error {
            ProposeError::NoMajority { .. } => Refusal::Later,
            ProposeError::NotMember => Refusal::Rules,
            ProposeError::TooLarge { .. } | ProposeError::Stopped(_) => Refusal::Failed,
        },
    }
}

/// The same of an operation.
fn kind_of_door(error: &DoorError) -> fn(String) -> Refusal {
    match error {
        DoorError::Refused(_) => Refusal::Rules,
        DoorError::Unanswered(_) | DoorError::NotProposed(_) | DoorError::Busy { .. } => Refusal::Later,
        DoorError::Unreadable(_) => Refusal::Failed,
    }
}

/// The same of the removal of a filer, by its name.
fn not_removed(name: &str, error: RemovalError) -> Refusal {
    let halted = |why: String| {
        format!(
            "{why}; filer {name} may take no writes until it is removed (filer peers remove {name}) or told to go on (filer peers keep {name})"
        )
    };
    match error {
        RemovalError::Alone { segments, bytes, .. } => Refusal::Rules(format!(
            "filer {name} alone holds {} of files (in {}) that no cloud has yet: start it and wait until its staging is empty (filer status), or remove those files first",
            counted(bytes, "byte"),
            counted(segments, "segment")
        )),
        RemovalError::Refused(error) => refusal(error),
        RemovalError::Unfinished { source, .. } => kind_of(&source)(halted(source.to_string())),
        RemovalError::Ending { source, .. } | RemovalError::Halted { source, .. } => {
            kind_of_door(&source)(halted(source.to_string()))
        }
        RemovalError::Table(error) => Refusal::Failed(halted(error.to_string())),
    }
}

/// The cloud that an operator names, as lists of clouds show it or by its letter; a name counts first.
fn cloud_called(called: &str, names: [&str; 2]) -> Result<CloudId, Refusal> {
    let named = CloudId::BOTH.into_iter().find(|cloud| names[cloud.index()] == called);
    let lettered = || CloudId::BOTH.into_iter().find(|cloud| cloud.to_string() == called);
    named.or_else(lettered).ok_or_else(|| {
        let [a, b] = names;
        Refusal::NotFound(format!("no cloud is called {called}; the clouds are {a} (a) and {b} (b)"))
    })
}

/// That a cloud was made active; `held_from`: the preferred cloud, which does not become active by itself now.
fn activated(active: &str, epoch: Epoch, held_from: Option<&str>) -> String {
    let held = held_from.map_or(String::new(), |preferred| {
        format!("; {preferred} does not become active by itself until you ask for it (filer cloud failback), or {active} fails")
    });
    format!("cloud {active} is active, epoch {epoch}{held}")
}

/// A filer's name among `names`, or its id where it has none there: it may be a member no more.
fn name_in(names: &BTreeMap<FilerId, String>, filer: FilerId) -> String {
    names.get(&filer).cloned().unwrap_or_else(|| filer.to_string())
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_is_called_by_its_name_or_its_letter() {
        let names = ["aws", "azure"];
        for (called, cloud) in [("aws", CloudId::A), ("a", CloudId::A), ("azure", CloudId::B), ("b", CloudId::B)] {
            assert_eq!(cloud_called(called, names), Ok(cloud), "{called}");
        }
        assert_eq!(cloud_called("a", ["b", "a"]), Ok(CloudId::B), "a name counts first");
        for wrong in ["gcs", "AWS", "", "c"] {
            let refused = cloud_called(wrong, names).unwrap_err();
            let known = "the clouds are aws (a) and azure (b)";
            assert!(matches!(&refused, Refusal::NotFound(why) if why.contains(known)), "{refused}");
        }
    }

    #[test]
    fn who_moves_away_from_the_preferred_cloud_is_told_how_to_go_back() {
        assert_eq!(activated("aws", Epoch(3), None), "cloud aws is active, epoch 3");
        let told = activated("azure", Epoch(2), Some("aws"));
        assert!(told.starts_with("cloud azure is active, epoch 2; aws does not become active by itself"), "{told}");
        assert!(told.contains("filer cloud failback"), "{told}");
    }

    #[test]
    fn a_filer_that_was_not_removed_is_told_of_by_what_is_to_be_done() {
        let filer = FilerId(7);
        let told = |error| not_removed("fra", error);
        let alone = told(RemovalError::Alone { filer, segments: 2, bytes: 9 });
        assert!(matches!(&alone, Refusal::Rules(why) if why.contains("fra alone holds 9 bytes")), "{alone}");
        let refused = told(RemovalError::Refused(MembershipError::LastVoter(filer)));
        assert!(matches!(&refused, Refusal::Rules(why) if !why.contains("keep")), "it goes on: {refused}");
        let no_majority = || ProposeError::NoMajority { after_ms: 1 };
        for halted in [
            RemovalError::Ending { filer, source: DoorError::Unanswered(no_majority()) },
            RemovalError::Halted { filer, source: DoorError::NotProposed(no_majority()) },
            RemovalError::Unfinished { filer, source: MembershipError::Propose(no_majority()) },
        ] {
            let halted = told(halted);
            assert!(matches!(&halted, Refusal::Later(why) if why.contains("filer peers keep fra")), "{halted}");
        }
    }

    #[test]
    fn a_change_that_was_not_made_is_told_by_its_kind() {
        let id = FilerId(7);
        assert!(matches!(refusal(MembershipError::Unknown(id)), Refusal::NotFound(_)));
        assert!(matches!(refusal(MembershipError::LastVoter(id)), Refusal::Rules(_)));
        assert!(matches!(refusal(MembershipError::Malformed("x".into())), Refusal::Request(_)));
        let later = |error: ProposeError| refusal(MembershipError::Propose(error));
        assert!(matches!(later(ProposeError::NoMajority { after_ms: 1 }), Refusal::Later(_)));
        assert!(matches!(later(ProposeError::Stopped("it broke".into())), Refusal::Failed(_)));
    }
}
