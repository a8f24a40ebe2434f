//! Which addresses DHCP gives out: the configured pools, less what the site file gives out itself as static addresses.
//!
//! A machine that has a static address is not always there to defend it: it may be off, or just being installed. So what the
//! site gives out is none of DHCP's, whoever has it at the moment.

use std::net::{IpAddr, Ipv4Addr};

use rackbar_dhcp::Range;
use rackbar_plan::Site;
use rackbar_plan::site::Addresses;

/// These pools without the static ranges of the site.
pub(super) fn without_static(pools: Vec<Range>, site: Option<&Site>) -> Vec<Range> {
    let networks = site.iter().flat_map(|site| site.network.values());
    let fixed = networks.filter_map(|network| match network.addresses {
        Addresses::Range(IpAddr::V4(first), IpAddr::V4(last)) => Some((first, last)),
        _ => None,
    });
    fixed.fold(pools, |pools, fixed| {
        pools.into_iter().flat_map(|pool| less(pool, fixed)).collect()
    })
}

/// A pool less a range: nothing, what is below it, what is above it, or both.
fn less(pool: Range, (first, last): (Ipv4Addr, Ipv4Addr)) -> impl Iterator<Item = Range> {
    let before = u32::from(first).checked_sub(1).map(Ipv4Addr::from);
    let after = u32::from(last).checked_add(1).map(Ipv4Addr::from);
    let below = before.map(|before| Range {
        first: pool.first,
        last: pool.last.min(before),
    });
    let above = after.map(|after| Range {
        first: pool.first.max(after),
        last: pool.last,
    });
    below.into_iter().chain(above).filter(|range| range.first <= range.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(ranges: &[&str]) -> Site {
        let mut text = String::from("version = 1\n");
        for (number, range) in ranges.iter().enumerate() {
            let subnet = if range.starts_with("10.9.") {
                "10.9.0.0/24"
            } else {
                "10.10.0.0/24"
            };
            text += &format!(
                "[network.n{number}]\nsubnet = \"{subnet}\"\nvlan = {}\naddresses = \"{range}\"\n",
                number + 2
            );
        }
        rackbar_plan::Site::parse(&text).unwrap()
    }

    fn left(first: u8, last: u8, ranges: &[&str]) -> Vec<(u8, u8)> {
        let pool = Range {
            first: Ipv4Addr::new(10, 10, 0, first),
            last: Ipv4Addr::new(10, 10, 0, last),
        };
        let left = without_static(vec![pool], Some(&site(ranges)));
        left.iter()
            .map(|range| (range.first.octets()[3], range.last.octets()[3]))
            .collect()
    }

    #[test]
    fn what_the_site_gives_out_is_none_of_dhcps() {
        assert_eq!(left(50, 99, &[]), [(50, 99)]);
        assert_eq!(left(50, 99, &["10.10.0.60-10.10.0.69"]), [(50, 59), (70, 99)]);
        assert_eq!(left(50, 99, &["10.10.0.10-10.10.0.50"]), [(51, 99)]);
        assert_eq!(left(50, 99, &["10.10.0.99-10.10.0.120"]), [(50, 98)]);
        assert_eq!(left(50, 99, &["10.10.0.10-10.10.0.200"]), []);
        assert_eq!(
            left(50, 99, &["10.10.0.100-10.10.0.120", "10.9.0.50-10.9.0.99"]),
            [(50, 99)]
        );
        assert_eq!(without_static(Vec::new(), None), []);
    }
}
