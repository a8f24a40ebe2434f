//! The jobs of an installation, one after the other, and a server for the image.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::sync::Once;

use rackbar_messages::{Ask, FromAgent, JobId, JobReport, ToAgent, Work};
use rackbar_model::{BurnIn, Digest, DiskRef, EraseMethod, ImageFormat, ImageSource, OsNetwork, OsSetup, RootTarget};

use super::support::Peer;

/// Serves one file by ranges, on every path.
fn serve_file(address: &str, path: String) {
    let port = address.rsplit(':').next().unwrap();
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut file = File::open(&path).unwrap();
            let size = file.metadata().unwrap().len();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            loop {
                let header: Vec<String> = lines.by_ref().map_while(|l| l.ok().filter(|l| !l.is_empty())).collect();
                let Some(range) = header.iter().find_map(|line| line.strip_prefix("Range: bytes=")) else {
                    break;
                };
                let (from, to) = range.split_once('-').unwrap();
                let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse::<u64>().unwrap().min(size - 1));
                file.seek(SeekFrom::Start(from)).unwrap();
                let length = to + 1 - from;
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\nContent-Range: bytes {from}-{to}/{size}\r\n\r\n"
                );
                let sent = stream.write_all(head.as_bytes());
                if sent.is_err() || std::io::copy(&mut (&file).take(length), &mut stream).is_err() {
                    break;
                }
            }
        }
    });
}

fn job(peer: &mut Peer, number: u8, work: Work) -> Result<JobReport, String> {
    let job = JobId([number; 16]);
    println!("== job {number}: {work:?}");
    let begun = std::time::Instant::now();
    let work = Box::new(work);
    peer.send(&ToAgent::Ask {
        id: number.into(),
        ask: Ask::Begin { job, work },
    });
    loop {
        match peer.read()? {
            FromAgent::Progress { doing, done, total, .. } => println!("   {doing}: {done} of {total}"),
            FromAgent::Ended { job: ended, result } if ended == job => {
                println!("== {:.1} s: {result:#?}", begun.elapsed().as_secs_f64());
                peer.send(&ToAgent::Noted(job));
                return result.map_err(|failure| failure.reason);
            }
            FromAgent::Done { result: Err(why), .. } => return Err(why),
            _ => {}
        }
    }
}

/// Installs what the program's arguments say.
pub fn run(peer: &mut Peer) -> Result<(), String> {
    let words: Vec<String> = std::env::args().skip(3).collect();
    let [path, serials, address, options @ ..] = words.as_slice() else {
        return Err("install IMAGE SERIALS ADDRESS [burn-in] [kexec] [key=FILE]".to_owned());
    };
    let key = options.iter().find_map(|option| option.strip_prefix("key="));
    let ssh_keys: Vec<String> = key.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let bytes = std::fs::read(path).unwrap();
    // Once, however often the agent has to connect anew.
    static SERVER: Once = Once::new();
    SERVER.call_once(|| serve_file(address, path.clone()));
    let disks: Vec<DiskRef> = serials
        .split(',')
        .map(|serial| DiskRef {
            serial: Some(serial.to_owned()),
            ..DiskRef::default()
        })
        .collect();
    let target = match disks.as_slice() {
        [first, second] => RootTarget::Mirror([first.clone(), second.clone()]),
        _ => RootTarget::Disk(disks[0].clone()),
    };
    let image = ImageSource {
        name: path.clone(),
        url: format!("http://{address}/image"),
        format: if path.ends_with("qcow2") {
            ImageFormat::Qcow2
        } else {
            ImageFormat::Zstd
        },
        sha256: Digest(
            ring::digest::digest(&ring::digest::SHA256, &bytes)
                .as_ref()
                .try_into()
                .unwrap(),
        ),
        bytes: bytes.len() as u64,
        disk_bytes: None,
    };
    let setup = OsSetup {
        hostname: "node-001".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        networks: vec![OsNetwork {
            name: "mgmt".into(),
            nics: vec![rackbar_model::MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56])],
            bond: None,
            vlan: None,
            mtu: None,
            addresses: Vec::new(),
            gateway: None,
        }],
        ssh_keys,
        ..OsSetup::default()
    };
    if options.iter().any(|option| option == "burn-in") {
        let burn_in = BurnIn {
            cpu_seconds: 2,
            memory_seconds: 2,
            disk_seconds: 2,
        };
        job(peer, 1, Work::BurnIn(burn_in))?;
    }
    let method = EraseMethod::Signatures;
    job(peer, 2, Work::Erase { disks, method })?;
    let (to, source) = (target.clone(), image);
    job(
        peer,
        3,
        Work::Write {
            target: to,
            image: source,
        },
    )?;
    job(peer, 4, Work::Layout)?;
    let to = target.clone();
    job(peer, 5, Work::Setup { target: to, setup })?;
    let (to, label) = (target.clone(), "rackbar".to_owned());
    job(peer, 6, Work::BootOrder { target: to, label })?;
    if options.iter().any(|option| option == "kexec") {
        job(peer, 7, Work::Kexec { target })?;
        return Ok(());
    }
    peer.send(&ToAgent::Ask {
        id: 99,
        ask: Ask::Reboot,
    });
    Ok(())
}
