//! What a site already has before the appliance comes: its own DHCP server, a web and a TFTP server, an IPv6 router.
//! All are deliberately plain, as a small office's would be.

mod archive;
mod dhcp;
mod files;
mod router;
mod tftp;
mod web;

pub use archive::Archive;
pub use dhcp::{BootRule, DhcpServer, DhcpSettings, Lease};
pub use files::Files;
pub use router::RouterAdvertiser;
pub use tftp::TftpServer;
pub use web::WebServer;
