//! Who a client says is calling (RFC 5531, appendix A).

use super::decode::{Decoder, Malformed};
use bytes::Bytes;
use nfs3_types::rpc::{auth_flavor, auth_stat};

/// Longest body of a credential or verifier, in bytes.
const BODY_BYTES_MAX: usize = 400;
/// Longest machine name of AUTH_SYS, in bytes.
const MACHINE_BYTES_MAX: usize = 255;
/// Most supplementary groups of AUTH_SYS.
const GROUPS_MAX: u32 = 16;

/// A caller as the client names it, before any squashing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// AUTH_NONE.
    Anonymous,
    /// AUTH_SYS.
    Sys { uid: u32, gid: u32, groups: Vec<u32> },
}

/// Reads credential and verifier of a call. `Ok(Err(_))`: well formed, but refused.
pub fn credentials(call: &mut Decoder) -> Result<Result<Credentials, auth_stat>, Malformed> {
    let (flavor, body) = (call.u32()?, call.opaque()?);
    let (verifier_flavor, verifier) = (call.u32()?, call.opaque()?);
    if body.len() > BODY_BYTES_MAX {
        return Ok(Err(auth_stat::AUTH_BADCRED));
    }
    let credentials = match flavor {
        f if f == auth_flavor::AUTH_NULL as u32 => Ok(Credentials::Anonymous),
        f if f == auth_flavor::AUTH_UNIX as u32 => auth_sys(body).map_err(|Malformed| auth_stat::AUTH_BADCRED),
        // None was ever handed out.
        f if f == auth_flavor::AUTH_SHORT as u32 => Err(auth_stat::AUTH_REJECTEDCRED),
        _ => Err(auth_stat::AUTH_TOOWEAK),
    };
    let verified = verifier_flavor == auth_flavor::AUTH_NULL as u32 && verifier.is_empty();
    Ok(match credentials {
        Ok(_) if !verified => Err(auth_stat::AUTH_BADVERF),
        credentials => credentials,
    })
}

fn auth_sys(body: Bytes) -> Result<Credentials, Malformed> {
    let mut body = Decoder::new(body);
    let _stamp = body.u32()?;
    let machine = body.opaque()?;
    let (uid, gid, count) = (body.u32()?, body.u32()?, body.u32()?);
    if machine.len() > MACHINE_BYTES_MAX || count > GROUPS_MAX {
        return Err(Malformed);
    }
    let groups = (0..count).map(|_| body.u32()).collect::<Result<_, _>>()?;
    if body.rest().is_empty() { Ok(Credentials::Sys { uid, gid, groups }) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nfs3_types::rpc::{auth_unix, opaque_auth};
    use nfs3_types::xdr_codec::{Opaque, Pack};

    fn read(flavor: u32, body: &[u8]) -> Result<Result<Credentials, auth_stat>, Malformed> {
        let mut record = flavor.to_be_bytes().to_vec();
        Opaque::borrowed(body).pack(&mut record).expect("a Vec takes any write");
        opaque_auth::default().pack(&mut record).expect("a Vec takes any write");
        credentials(&mut Decoder::new(record.into()))
    }

    fn sys(groups: u32) -> Vec<u8> {
        let auth = auth_unix { uid: 5, gid: 6, gids: (0..groups).collect(), ..auth_unix::default() };
        opaque_auth::auth_unix(&auth).body.into_owned()
    }

    #[test]
    fn auth_sys_carries_up_to_16_groups() {
        let expected = Credentials::Sys { uid: 5, gid: 6, groups: (0..16).collect() };
        assert_eq!(read(1, &sys(16)), Ok(Ok(expected)));
        assert_eq!(read(1, &sys(17)), Ok(Err(auth_stat::AUTH_BADCRED)));
    }

    #[test]
    fn what_is_malformed_or_unknown_is_refused() {
        assert_eq!(read(0, &[]), Ok(Ok(Credentials::Anonymous)));
        assert_eq!(read(1, &[]), Ok(Err(auth_stat::AUTH_BADCRED)));
        assert_eq!(read(1, &[&sys(1)[..], &[0; 4]].concat()), Ok(Err(auth_stat::AUTH_BADCRED)));
        assert_eq!(read(0, &[0; 404]), Ok(Err(auth_stat::AUTH_BADCRED)));
        assert_eq!(read(2, &[]), Ok(Err(auth_stat::AUTH_REJECTEDCRED)));
        assert_eq!(read(6, &[]), Ok(Err(auth_stat::AUTH_TOOWEAK)));
        assert_eq!(credentials(&mut Decoder::new(Bytes::from_static(&[0; 7]))), Err(Malformed));
    }
}
