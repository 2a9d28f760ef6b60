//! What the machine allows: open files and ephemeral ports, raised or spread where possible.

use std::net::{IpAddr, Ipv4Addr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors the process needs beside its connections.
const SPARE_FILES: u64 = 300;

/// The share of a source address's ephemeral ports that is used. Linux looks for a free port among
/// every second one first; once those are taken, each connect searches thousands of ports in vain
/// (here: from 14,116 connections on, the ramp fell from 3,000 a second to 500). Recently closed
/// connections hold their ports for a minute, too.
const PORT_SHARE: f64 = 0.4;

/// Raises the soft limit of open files to the hard one if `connections` need it.
///
/// Returns a sentence about what was done, if anything was.
pub fn raise_file_limit(connections: u64) -> Result<Option<String>, LimitError> {
    let needed = connections + SPARE_FILES;
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    if soft >= needed {
        return Ok(None);
    }
    if hard < needed {
        return Err(LimitError::Files { needed, hard });
    }
    let raised = Rlimit { current: Some(hard), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|error| LimitError::Refused { needed, error })?;
    Ok(Some(format!("raised the limit of open files from {soft} to {hard} ({needed} needed)")))
}

/// How many connections one process can hold under the hard limit of open files.
pub fn connections_per_process() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).saturating_sub(SPARE_FILES)
}

/// Why the machine cannot carry the run.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// More than the hard limit allows.
    #[error("{needed} open files are needed, the hard limit is {hard}: raise it (ulimit -Hn) or use --processes")]
    Files {
        /// Connections and what the process needs itself.
        needed: u64,
        /// The hard limit.
        hard: u64,
    },
    /// The kernel refused to raise the soft limit.
    #[error("{needed} open files are needed, but the limit cannot be raised: {error}")]
    Refused {
        /// Connections and what the process needs itself.
        needed: u64,
        /// What the kernel said.
        error: rustix::io::Errno,
    },
    /// Not enough ports, and nothing to spread over.
    #[error(
        "{connections} connections to {target} need more ephemeral ports than one source address has ({ports}): \
         give --source-addresses, widen net.ipv4.ip_local_port_range, or use several hosts"
    )]
    Ports {
        /// Connections asked for.
        connections: u32,
        /// The server.
        target: IpAddr,
        /// Ports a source address has.
        ports: u32,
    },
}

/// Which source addresses to bind, empty for the kernel's choice.
///
/// Towards loopback, every address in 127.0.0.0/8 is ours, so more of them are used when the ephemeral
/// ports of one do not suffice. `first_client` keeps several processes of one run apart.
pub fn source_addresses(
    connections: u32,
    first_client: u32,
    total: u32,
    target: IpAddr,
    given: &[IpAddr],
) -> Result<Vec<IpAddr>, LimitError> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    spread(connections, first_client, total, target, ephemeral_ports())
}

fn spread(
    connections: u32,
    first_client: u32,
    total: u32,
    target: IpAddr,
    ports: u32,
) -> Result<Vec<IpAddr>, LimitError> {
    let per_address = ((f64::from(ports) * PORT_SHARE) as u32).max(1);
    if total <= per_address {
        return Ok(Vec::new());
    }
    if !matches!(target, IpAddr::V4(address) if address.is_loopback()) {
        return Err(LimitError::Ports { connections: total, target, ports });
    }
    let first = first_client / per_address;
    let last = (first_client + connections).saturating_sub(1) / per_address;
    // From 127.0.1.1 on, 250 to a block, to stay clear of addresses other things listen on.
    let address = |number: u32| {
        let (block, host) = (1 + number / 250, 1 + number % 250);
        IpAddr::V4(Ipv4Addr::new(127, 0, block as u8, host as u8))
    };
    Ok((first..=last).map(address).collect())
}

/// How many ephemeral ports a source address has; Linux's default where it cannot be read.
fn ephemeral_ports() -> u32 {
    const DEFAULT: u32 = 60_999 - 32_768 + 1;
    let Ok(text) = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") else { return DEFAULT };
    let mut bounds = text.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(low), Some(high)) if high >= low => high - low + 1,
        _ => DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn one_address_is_left_to_the_kernel() {
        assert_eq!(spread(11_000, 0, 11_000, LOOPBACK, 28_232).unwrap(), Vec::<IpAddr>::new());
        assert_eq!(spread(19_000, 0, 19_000, LOOPBACK, 28_232).unwrap().len(), 2);
    }

    #[test]
    fn more_connections_than_ports_are_spread_over_loopback() {
        let addresses = spread(50_000, 0, 50_000, LOOPBACK, 25_000).unwrap();
        assert_eq!(addresses.len(), 5);
        assert!(addresses.iter().all(IpAddr::is_loopback));
        let of_second_process = spread(20_000, 40_000, 60_000, LOOPBACK, 25_000).unwrap();
        assert_eq!(of_second_process[0], IpAddr::V4(Ipv4Addr::new(127, 0, 1, 5)));
    }

    #[test]
    fn towards_another_host_the_ports_must_do() {
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert!(matches!(spread(50_000, 0, 50_000, elsewhere, 25_000), Err(LimitError::Ports { .. })));
    }

    #[test]
    fn more_files_than_the_hard_limit_is_an_error() {
        assert!(matches!(raise_file_limit(u64::MAX / 2), Err(LimitError::Files { .. })));
        assert!(raise_file_limit(1).is_ok());
    }
}
