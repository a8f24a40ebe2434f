//! What the switch and the simulated hosts carry. A measurement to look at, with a floor far below what any machine
//! reaches, so that only a blunder fails it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rackbar_model::MacAddr;
use rackbar_vrack::host::{Host, HostConfig, Ipv4};
use rackbar_vrack::switch::{PortConfig, Switch, SwitchConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SIZE: usize = 64 << 20;
/// In bytes per second.
const FLOOR: f64 = 5e6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tcp_stream_between_two_hosts() {
    let switch = Switch::new(SwitchConfig::default());
    let host = |last: u8| {
        let port = switch.port(PortConfig::access(format!("Ethernet1/{last}"), "host", 10));
        let ipv4 = Ipv4::fixed(Ipv4Addr::new(10, 0, 0, last), 24);
        Host::new(port, HostConfig::new(MacAddr([2, 0, 0, 0, 0, last]), ipv4))
    };
    let (server, client) = (host(1), host(2));
    let mut listener = server.listen(80, 1).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let chunk = vec![0x5a; 64 << 10];
        for _ in 0..SIZE / chunk.len() {
            stream.write_all(&chunk).await.unwrap();
        }
    });
    let start = Instant::now();
    let transfer = async {
        let mut stream = client
            .connect(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 80))
            .await
            .unwrap();
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => return total,
                count => total += count,
            }
        }
    };
    let total = tokio::time::timeout(Duration::from_secs(120), transfer)
        .await
        .expect("stalled");
    assert_eq!(total, SIZE);
    let rate = SIZE as f64 / start.elapsed().as_secs_f64();
    println!("{:.0} MB/s", rate / 1e6);
    assert!(rate > FLOOR, "{rate} bytes per second");
}
