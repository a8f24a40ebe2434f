//! Counters of the proxy.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number; those of gauges go both ways.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One value with what is needed to render it in the Prometheus text format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Metric name.
    pub name: &'static str,
    /// One sentence about it.
    pub help: &'static str,
    /// It may go down.
    pub gauge: bool,
    /// The value.
    pub value: u64,
}

macro_rules! metrics {
    ($($field:ident $gauge:literal $name:literal $help:literal;)*) => {
        /// All counters of the proxy.
        #[derive(Default, Debug)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: Counter,)*
        }

        impl Metrics {
            /// All of them now.
            pub fn samples(&self) -> Vec<Sample> {
                vec![$(Sample { name: $name, help: $help, gauge: $gauge, value: self.$field.get() },)*]
            }
        }
    };
}

metrics! {
    connections true "rackbar_proxy_connections" "Connections of clients that are open.";
    requests false "rackbar_proxy_requests_total" "Requests of clients.";
    hits false "rackbar_proxy_hits_total" "Requests answered from the store.";
    client_bytes false "rackbar_proxy_client_bytes_total" "Bytes of content sent to clients.";
    origin_requests false "rackbar_proxy_origin_requests_total" "Requests to origins that were answered.";
    origin_bytes false "rackbar_proxy_origin_bytes_total" "Bytes of content that came from origins to be stored.";
    origin_failures false "rackbar_proxy_origin_failures_total" "Fetches that no origin answered or that broke off.";
    resumed false "rackbar_proxy_resumed_total" "Broken fetches that went on where they broke.";
    mismatches false "rackbar_proxy_digest_mismatches_total" "Contents refused as their digest was not the promised one.";
    not_stored false "rackbar_proxy_not_stored_total" "Contents passed on without being stored for want of room.";
    refused false "rackbar_proxy_refused_total" "What was refused: destinations against the rule, clients of networks that are not served, connections beyond those one client may have.";
    tunnels true "rackbar_proxy_tunnels" "CONNECT tunnels that are open.";
}
