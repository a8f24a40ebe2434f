//! How values are written. Leases are postcard behind a version byte, because postcard cannot tell an old form from a
//! new one; events and inventories are JSON, whose readers skip what they do not know.

use rackbar_model::{Event, Lease};

use crate::StoreError;
use crate::queue::Op;

/// First byte of every lease record.
const LEASE_VERSION: u8 = 1;

pub(crate) fn lease_op(lease: &Lease) -> Result<Op, StoreError> {
    let mut value = vec![LEASE_VERSION];
    let body = postcard::to_allocvec(lease)
        .map_err(|error| StoreError::Failed(format!("the lease of {} could not be written: {error}", lease.address)))?;
    value.extend_from_slice(&body);
    Ok(Op::Lease {
        address: lease.address.octets(),
        value,
    })
}

/// `None` for a record this version does not know: one unreadable lease must not keep DHCP from starting.
pub(crate) fn lease(bytes: &[u8]) -> Option<Lease> {
    match bytes.split_first()? {
        (&LEASE_VERSION, body) => postcard::from_bytes(body).ok(),
        _ => None,
    }
}

/// `None` for an event this version does not know.
pub(crate) fn event(bytes: &[u8]) -> Option<Event> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = lease(&bytes);
            let _ = event(&bytes);
        }
    }

    #[test]
    fn an_event_of_before_remote_ids_is_still_read() {
        // As journals hold it from before. If this fails, give the new field a default; never edit the bytes.
        let old = br#"{"seq":7,"at":"2026-11-20T17:24:28.123Z","node":null,"mac":"52:54:00:01:02:03","kind":{"dhcp_discover":{"network":"far","arch":"x64_uefi","vendor_class":"PXEClient","user_class":null,"relay":"10.30.0.254","circuit_id":"eth7"}}}"#;
        let event = event(old).expect("an old event");
        let rackbar_model::EventKind::DhcpDiscover {
            circuit_id, remote_id, ..
        } = &event.kind
        else {
            panic!("{event:?}");
        };
        let new = serde_json::to_string(&event).expect("JSON");
        assert_eq!(
            new.replace(r#","remote_id":null"#, "").as_bytes(),
            old,
            "nothing else changed"
        );
        assert_eq!((circuit_id.as_deref(), remote_id.as_deref()), (Some("eth7"), None));
    }

    #[test]
    fn a_lease_keeps_its_exact_bytes() {
        // Written by version 1. If this fails, undo the change or raise the version; never edit the bytes.
        let lease_v1 = Lease {
            address: [10, 10, 0, 100].into(),
            network: "rack".into(),
            mac: rackbar_model::MacAddr([0x52, 0x54, 0, 1, 2, 3]),
            client_id: vec![1, 2],
            hostname: None,
            state: rackbar_model::LeaseState::Bound,
            expires: rackbar_model::Timestamp(300),
        };
        let bytes = [
            1, 10, 10, 0, 100, 4, b'r', b'a', b'c', b'k', 0x52, 0x54, 0, 1, 2, 3, 2, 1, 2, 0, 0, 0xac, 2,
        ];
        assert_eq!(lease(&bytes), Some(lease_v1.clone()));
        let Ok(Op::Lease { value, .. }) = lease_op(&lease_v1) else {
            panic!("no lease op");
        };
        assert_eq!(value, bytes);
    }
}
