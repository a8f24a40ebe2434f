//! Counters of the services. Services add, the API renders; nothing else reads them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or for gauges goes both ways.
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

    /// Takes one away; for gauges.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets it; for gauges.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a value may go down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SampleKind {
    /// Only grows.
    Counter,
    /// Goes both ways.
    Gauge,
}

/// One value with what is needed to render it in the Prometheus text format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Metric name.
    pub name: &'static str,
    /// One sentence about it.
    pub help: &'static str,
    /// Whether it may go down.
    pub kind: SampleKind,
    /// The value.
    pub value: u64,
}

macro_rules! metrics {
    ($($field:ident: $kind:ident $name:literal $help:literal;)*) => {
        /// All counters of the services, shared by them.
        #[derive(Default, Debug)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: Counter,)*
        }

        impl Metrics {
            /// All values now.
            pub fn samples(&self) -> Vec<Sample> {
                vec![$(Sample {
                    name: $name,
                    help: $help,
                    kind: SampleKind::$kind,
                    value: self.$field.get(),
                },)*]
            }
        }
    };
}

metrics! {
    dhcp_received: Counter "rackbar_dhcp_packets_received_total" "DHCP packets taken from the sockets.";
    dhcp_sent: Counter "rackbar_dhcp_packets_sent_total" "DHCP packets sent.";
    dhcp_send_errors: Counter "rackbar_dhcp_send_errors_total" "DHCP packets the system refused to send.";
    dhcp_kernel_drops: Counter "rackbar_dhcp_receive_overflow_total" "DHCP packets lost because a receive buffer was full.";
    dhcp_malformed: Counter "rackbar_dhcp_malformed_total" "DHCP packets the engine could not read.";
    dhcp_commits: Counter "rackbar_dhcp_lease_commits_total" "Group commits of leases.";
    dhcp_commit_failures: Counter "rackbar_dhcp_lease_commit_failures_total" "Group commits that failed; their answers were not sent.";
    dhcp_leases_committed: Counter "rackbar_dhcp_leases_committed_total" "Leases made durable.";
    dhcp_arp_probes: Counter "rackbar_dhcp_arp_probes_total" "Address conflict probes sent before offers.";
    tftp_requests: Counter "rackbar_tftp_requests_total" "TFTP read requests.";
    tftp_done: Counter "rackbar_tftp_transfers_done_total" "TFTP transfers that ended well.";
    tftp_failed: Counter "rackbar_tftp_transfers_failed_total" "TFTP requests refused and transfers that failed.";
    tftp_bytes: Counter "rackbar_tftp_bytes_sent_total" "Bytes of boot files sent by TFTP, repeats included.";
    tftp_blocks_resent: Counter "rackbar_tftp_blocks_resent_total" "TFTP blocks sent again.";
    tftp_transfers: Gauge "rackbar_tftp_transfers" "TFTP transfers under way.";
    tftp_places: Gauge "rackbar_tftp_transfers_limit" "Most TFTP transfers at one time.";
    tftp_waiting: Gauge "rackbar_tftp_waiting" "TFTP requests that wait for a place.";
    tftp_refused: Counter "rackbar_tftp_refused_total" "TFTP requests beyond the limit of transfers.";
    http_connections: Gauge "rackbar_boot_http_connections" "Open connections to the boot HTTP server.";
    http_places: Gauge "rackbar_boot_http_connections_limit" "Most open connections to the boot HTTP server.";
    http_accepted: Counter "rackbar_boot_http_connections_total" "Connections taken by the boot HTTP server.";
    http_refused: Counter "rackbar_boot_http_connections_refused_total" "Connections closed at once because their client had too many.";
    http_full: Counter "rackbar_boot_http_full_total" "Times that all places for connections were taken and newcomers had to wait.";
    http_timeouts: Counter "rackbar_boot_http_timeouts_total" "Connections closed because a client stalled.";
    http_requests: Counter "rackbar_boot_http_requests_total" "Requests answered by the boot HTTP server.";
    http_errors: Counter "rackbar_boot_http_errors_total" "Boot HTTP answers with status 400 or above.";
    http_bytes: Counter "rackbar_boot_http_bytes_sent_total" "Body bytes sent by the boot HTTP server.";
    dns_queries: Counter "rackbar_dns_queries_total" "DNS queries that came.";
    dns_dropped: Counter "rackbar_dns_dropped_total" "DNS messages that got no answer: no queries, or beyond the limit for strangers.";
    dns_cache_hits: Counter "rackbar_dns_cache_hits_total" "Forwarded names answered from the cache.";
    dns_forwarded: Counter "rackbar_dns_forwarded_total" "Questions sent to upstream resolvers, repeats included.";
    dns_upstream_timeouts: Counter "rackbar_dns_upstream_timeouts_total" "Questions an upstream resolver did not answer in time.";
    dns_failed: Counter "rackbar_dns_failed_total" "Forwarded questions that ended without an answer.";
    ntp_answered: Counter "rackbar_ntp_answered_total" "NTP requests answered with the time.";
    ntp_kissed: Counter "rackbar_ntp_kissed_total" "NTP clients told to ask less often or not at all.";
    ntp_dropped: Counter "rackbar_ntp_dropped_total" "NTP packets dropped: no requests, or beyond a client's limit.";
    syslog_received: Counter "rackbar_syslog_messages_total" "Syslog messages that came.";
    syslog_dropped: Counter "rackbar_syslog_dropped_total" "Syslog messages dropped: from strangers, beyond a sender's limit, or refused by the disk.";
    captured: Counter "rackbar_captured_packets_total" "Boot packets that were kept for captures.";
    ra_solicitations: Counter "rackbar_ra_solicitations_total" "IPv6 router solicitations seen on served networks.";
    ra_sent: Counter "rackbar_ra_advertisements_total" "IPv6 router advertisements sent.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_show_what_was_counted_under_unique_names() {
        let metrics = Metrics::default();
        metrics.http_requests.add(2);
        metrics.http_requests.inc();
        let samples = metrics.samples();
        let requests = samples.iter().find(|s| s.name == "rackbar_boot_http_requests_total");
        assert_eq!(requests.unwrap().value, 3);
        let mut names: Vec<_> = samples.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), samples.len());
    }
}
