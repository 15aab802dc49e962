//! Dialling: one task per member that opens a session whenever none stands.
//!
//! After a failure it pauses; the pause doubles up to a limit and is drawn at random between half and all of it, so
//! that filers that lost each other together do not come back together. A waiting call shortens the pause to a
//! quarter. The address is looked up anew for every attempt.

use super::{
    hello::{Agreed, Hello},
    identity::{self, PeerName},
    quic::{self, Shared},
    session::{Close, Holder, PeerCertificate, Session, describe, says_removed},
    stats::Refusal,
    tls,
};
use crate::{FilerId, clock::Random, peers::Member, words::span};
use quinn::{Connection, ConnectionError, crypto::rustls::QuicClientConfig, rustls::pki_types::CertificateDer};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// How many addresses of a name are tried in one attempt.
const ADDRESSES_MAX: usize = 4;

/// Keeps a session with `id` for as long as it is a member. `wanted` rings when a call waits for one.
pub async fn keep(shared: Arc<Shared>, id: FilerId, wanted: Arc<Notify>) {
    while let Some(mut peer) = shared.roster.to_dial(id, &wanted) {
        if peer.up {
            // An error means that the peer left the table; the loop's condition ends it then.
            let _ = peer.changed.changed().await;
            continue;
        }
        if peer.failures > 0 {
            let pause = pause(&shared, peer.failures);
            tokio::select! {
                biased;
                _ = peer.changed.changed() => continue,
                _ = async { wanted.notified().await; sleep(pause / 4).await } => {}
                _ = sleep(pause) => {}
            }
        }
        match attempt(&shared, id, &peer.member).await {
            Ok(session) => quic::admit(&shared, session, Some(&wanted)),
            Err(why) => {
                shared.counts.dials_failed.one();
                let address = &peer.member.address;
                if shared.roster.failed(id, &why, true) {
                    tracing::warn!(peer = %id, name = %peer.member.name, %address, %why, "no session with a peer");
                } else {
                    tracing::debug!(peer = %id, name = %peer.member.name, %address, %why, "still no session with a peer");
                }
            }
        }
    }
}

/// The pause after the `failures`th failure in a row.
fn pause(shared: &Shared, failures: u32) -> Duration {
    let (min, max) = (shared.settings.redial_ms_min, shared.settings.redial_ms_max);
    let whole = min.saturating_mul(1u64 << (failures - 1).min(20)).min(max);
    Duration::from_millis(jittered(whole, &*shared.random))
}

/// A number between half of `whole` and all of it.
fn jittered(whole: u64, random: &dyn Random) -> u64 {
    let half = whole / 2;
    whole - half + random.next_u64() % (half + 1)
}

async fn attempt(shared: &Arc<Shared>, id: FilerId, member: &Member) -> Result<Session, String> {
    let whole = Duration::from_millis(shared.settings.dial_ms_max);
    let lookup = timeout(whole, tokio::net::lookup_host(&member.address)).await;
    let found = lookup
        .map_err(|_| format!("looking up {} took longer than {}", member.address, span(shared.settings.dial_ms_max)))?
        .map_err(|e| format!("{} cannot be looked up: {e}", member.address))?;
    let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
    let mut why = format!("{} has no address", member.address);
    for at in &addresses {
        let part = whole / addresses.len() as u32;
        why = match timeout(part, open(shared, id, *at)).await {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(e)) => e,
            Err(_) => format!("{at} did not answer within {}", span(part.as_millis() as u64)),
        };
    }
    Err(why)
}

async fn open(shared: &Arc<Shared>, id: FilerId, at: SocketAddr) -> Result<Session, String> {
    let (config, verdict) = shared.tls.client(id, at).map_err(|e| format!("TLS cannot be set up: {e}"))?;
    let crypto = QuicClientConfig::try_from(config).map_err(|e| format!("TLS cannot be set up: {e}"))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(shared.transport.clone());
    let connecting = shared
        .endpoint
        .connect_with(config, at, &tls::dialled_name(id))
        .map_err(|e| format!("{at} cannot be dialled: {e}"))?;
    let told = |e: ConnectionError| verdict.refused().map_or_else(|| format!("{at}: {}", describe(&e)), str::to_owned);
    let conn = connecting.await.map_err(told)?;
    // The peer checks our certificate only now; its greeting is the first proof that it takes us.
    let holder = who(&conn)?;
    match greet(&shared.hello, &conn, &holder.peer).await {
        Ok(agreed) => Ok(Session::new(holder, agreed, conn, true, &shared.settings)),
        Err(why) => {
            match conn.close_reason() {
                // Behind its certificate: no stranger on the way can say so in its name.
                Some(e) if says_removed(&e) => shared.roster.says_removed(id),
                Some(_) => {}
                None => {
                    shared.counts.refused_greetings.one();
                    Close::Greeting.end(&conn, &why);
                }
            }
            Err(format!("{at}: {why}"))
        }
    }
}

async fn greet(ours: &Hello, conn: &Connection, peer: &PeerName) -> Result<Agreed, String> {
    let lost = |conn: &Connection, e: String| conn.close_reason().map_or(e, |e| describe(&e));
    let said = async {
        let (mut send, mut recv) = conn.open_bi().await.map_err(|e| describe(&e))?;
        ours.write(&mut send).await.map_err(|e| lost(conn, e.to_string()))?;
        Hello::read(&mut recv).await.map_err(|e| lost(conn, e.to_string()))
    };
    ours.judge(&said.await?, peer)
}

/// Who stands at the other end of `conn`, by the certificate that TLS has checked.
pub fn who(conn: &Connection) -> Result<Holder, String> {
    let identity = conn.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let chain = identity.ok_or("the peer showed no certificate")?;
    let certificate = chain.first().ok_or("the peer showed no certificate")?;
    let (serial, not_after_s) = (identity::serial(certificate)?, identity::validity_s(certificate)?.1);
    Ok(Holder { peer: identity::peer_name(certificate)?, certificate: PeerCertificate { serial, not_after_s } })
}

/// Counts a peer that showed no certificate at all; the TLS library refuses it before our own checks are asked.
pub fn count_missing(shared: &Shared, e: &ConnectionError) {
    if let ConnectionError::TransportError(e) = e
        && u64::from(e.code) == 0x100 + 116
    {
        shared.counts.refuse(Refusal::Missing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededRandom;

    #[test]
    fn pauses_lie_between_half_and_all() {
        let random = SeededRandom::new(7);
        for whole in [1, 2, 99, 5_000] {
            for _ in 0..100 {
                let pause = jittered(whole, &random);
                assert!(pause >= whole / 2 && pause <= whole, "{pause} of {whole}");
            }
        }
    }
}
