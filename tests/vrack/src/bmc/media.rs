//! The virtual CD drive of a BMC: it fetches an image from a URL itself, over its own network, and has its machine see a
//! CD. Real BMCs read pieces on demand; ours takes the whole first, which a machine cannot tell.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use super::state::BmcState;
use crate::host::Host;
use crate::switch::Tasks;

/// Largest image taken, in bytes.
const LARGEST: u64 = 2 << 30;
/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a BMC needs to fetch images.
pub(super) struct Drive {
    /// Its own station.
    pub(super) station: Host,
    /// Where the image is kept while it is in.
    pub(super) image: PathBuf,
    /// Held while an image goes in or out.
    pub(super) busy: tokio::sync::Mutex<()>,
}

/// Why an image is not in.
pub(super) enum Refused {
    /// Another one is, or is being fetched.
    InUse,
    /// The drive takes no such URL.
    Url,
    /// It could not be fetched, or the machine does not take it.
    Failed(io::Error),
}

impl BmcState {
    /// The image in the virtual drive: a URL, or a file of this machine.
    pub fn media(&self) -> Option<String> {
        let url = self.inner().media_url.clone();
        url.or_else(|| self.power.media().map(|image| format!("file://{}", image.display())))
    }

    /// Puts the image at a URL in. A BMC without a station (on the loopback) only remembers URLs of the network.
    pub(super) async fn insert(&self, url: &str) -> Result<(), Refused> {
        if self.media().is_some() {
            return Err(Refused::InUse);
        }
        let file = url.strip_prefix("file://").map(PathBuf::from);
        let over_network = url.starts_with("http://") || url.starts_with("https://");
        let image = match (&self.drive, file) {
            (_, Some(file)) => file,
            (None, None) if over_network => {
                self.inner().media_url = Some(url.to_owned());
                return Ok(());
            }
            (Some(drive), None) if url.starts_with("http://") => {
                let _busy = drive.busy.try_lock().map_err(|_| Refused::InUse)?;
                let fetched = fetch(&drive.station, url, &drive.image).await;
                let size = fetched.map_err(Refused::Failed)?;
                self.log(format!("Virtual media: {size} bytes from {url}"));
                let set = self.power.set_media(Some(drive.image.clone())).await;
                set.map_err(Refused::Failed)?;
                self.inner().media_url = Some(url.to_owned());
                return Ok(());
            }
            (Some(_) | None, None) => return Err(Refused::Url),
        };
        self.power.set_media(Some(image)).await.map_err(Refused::Failed)
    }

    /// Takes the image out.
    pub(super) async fn eject(&self) -> io::Result<()> {
        let remembered = self.inner().media_url.is_some();
        if let Some(drive) = &self.drive {
            let _busy = drive.busy.lock().await;
            self.power.set_media(None).await?;
            // A file of the test's own is not ours to remove.
            if remembered {
                std::fs::remove_file(&drive.image)?;
                self.log("Virtual media: ejected");
            }
        } else if !remembered {
            self.power.set_media(None).await?;
        }
        self.inner().media_url = None;
        Ok(())
    }
}

/// Fetches `url` into a file; returns how many bytes that were. What arrives only in part leaves nothing behind.
async fn fetch(station: &Host, url: &str, into: &Path) -> io::Result<u64> {
    let part = into.with_extension("part");
    let result = download(station, url, &part).await;
    match &result {
        Ok(_) => std::fs::rename(&part, into)?,
        // It may not have been made yet.
        Err(_) => drop(std::fs::remove_file(&part)),
    }
    result.map_err(|error| io::Error::new(error.kind(), format!("{url}: {error}")))
}

async fn download(station: &Host, url: &str, into: &Path) -> io::Result<u64> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let host = uri.host().unwrap_or_default();
    let address: Ipv4Addr = host
        .parse()
        .map_err(|_| io::Error::other(format!("this BMC asks no DNS, and {host} is no IPv4 address")))?;
    let to = SocketAddrV4::new(address, uri.port_u16().unwrap_or(80));
    let stream = TokioIo::new(station.connect(to).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let tasks = Tasks::default();
    tasks.spawn(async move {
        // Its end is seen by whoever reads the answer.
        let _ended = connection.await;
    });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header("host", to.to_string())
        .header("user-agent", "rackbar-vrack BMC")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(io::Error::other)?;
    let mut answer = in_time(sender.send_request(request)).await?;
    if answer.status() != hyper::StatusCode::OK {
        return Err(io::Error::other(format!("the server says {}", answer.status())));
    }
    let mut file = tokio::fs::File::create(into).await?;
    let mut size = 0u64;
    while let Some(frame) = in_time(async { answer.frame().await.transpose() }).await? {
        let Ok(data) = frame.into_data() else { continue };
        size += data.len() as u64;
        if size > LARGEST {
            return Err(io::Error::other(format!("more than {LARGEST} bytes")));
        }
        file.write_all(&data).await?;
    }
    file.flush().await?;
    Ok(size)
}

async fn in_time<T>(asked: impl Future<Output = Result<T, hyper::Error>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(io::Error::other),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server is silent")),
    }
}
