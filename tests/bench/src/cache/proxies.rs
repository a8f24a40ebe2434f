//! Debian's caching proxies, each with its own defaults and what the measurement needs besides.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::net::Net;
use crate::peers::Start;
use crate::tftp::installed;

/// All that are installed, ours first.
pub(super) fn all(net: &Net) -> Result<Vec<Start>> {
    let mut all = vec![Start::ours(net, "cache", "10.88.0.1:3128")?];
    if installed("nginx") {
        all.push(nginx(net)?);
    }
    if installed("apt-cacher-ng") {
        all.push(apt_cacher_ng(net)?);
    }
    if installed("squid") {
        all.push(squid(net)?);
    }
    Ok(all)
}

/// A folder of the proxy's own, which also a user without rights can get to.
fn folder(net: &Net, name: &str) -> Result<std::path::PathBuf> {
    let folder = net.path(name);
    std::fs::create_dir_all(&folder)?;
    let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    for one in [net.folder(), &folder] {
        std::fs::set_permissions(one, open.clone())?;
    }
    Ok(folder)
}

/// nginx as a mirror: sendfile, open files kept, a worker per core, no log; one fetch for all who wait
/// (`proxy_cache_lock`), for as long as it takes.
fn nginx(net: &Net) -> Result<Start> {
    let folder = folder(net, "cache-nginx")?;
    let (configuration, at) = (folder.join("nginx.conf"), "10.88.0.1:8080");
    let f = folder.display();
    std::fs::write(
        &configuration,
        format!(
            "daemon off; user root; worker_processes auto; pid {f}/nginx.pid; error_log {f}/nginx.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; open_file_cache max=1000;\n\
             keepalive_requests 10000000; client_body_temp_path {f}/t1; proxy_temp_path {f}/t2;\n\
             fastcgi_temp_path {f}/t3; uwsgi_temp_path {f}/t4; scgi_temp_path {f}/t5;\n\
             proxy_cache_path {f}/cache levels=1:2 keys_zone=all:10m max_size=8g use_temp_path=off;\n\
             server {{ listen {at} reuseport; location / {{ proxy_pass http://10.88.0.2; proxy_cache all;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_cache_lock on;\n\
             proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s; }} }} }}\n"
        ),
    )?;
    let mut command = net.server_command("nginx");
    command.arg("-c").arg(&configuration).arg("-p").arg(&folder);
    Ok(Start {
        name: "nginx",
        at,
        command,
    })
}

/// apt-cacher-ng with its defaults, in a folder of its own.
fn apt_cacher_ng(net: &Net) -> Result<Start> {
    let folder = folder(net, "cache-acng")?;
    let f = folder.display();
    let mut command = net.server_command("apt-cacher-ng");
    command.args([
        "ForeGround=1",
        "Port=3142",
        "BindAddress=10.88.0.1",
        "SupportDir=/usr/lib/apt-cacher-ng",
    ]);
    command.args([format!("CacheDir={f}/cache"), format!("LogDir={f}/log")]);
    for name in ["cache", "log"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    Ok(Start {
        name: "apt-cacher-ng",
        at: "10.88.0.1:3142",
        command,
    })
}

/// Squid: its defaults keep no object above 4 MB and nothing on disk, so it gets a disk cache (`ufs`) for objects of any
/// size; one fetch for all who wait (`collapsed_forwarding`); no access log.
fn squid(net: &Net) -> Result<Start> {
    let folder = folder(net, "cache-squid")?;
    let (configuration, f) = (folder.join("squid.conf"), folder.display());
    std::fs::write(
        &configuration,
        format!(
            "http_port 10.88.0.1:3129\nacl rack src 10.88.0.0/16\nhttp_access allow rack\nhttp_access deny all\n\
             maximum_object_size 1 GB\ncache_dir ufs {f}/cache 8192 16 256\ncollapsed_forwarding on\n\
             access_log none\ncache_log {f}/cache.log\ncache_store_log none\npid_filename {f}/squid.pid\n\
             coredump_dir {f}\nvisible_hostname bench\npinger_enable off\nshutdown_lifetime 1 second\n\
             refresh_pattern . 0 20% 4320\n"
        ),
    )?;
    own(&folder, "proxy")?;
    // Its folders are made by a run of its own.
    let made = net
        .server_command("squid")
        .args(["-N", "-z", "-f"])
        .arg(&configuration)
        .output()
        .context("running squid -z")?;
    anyhow::ensure!(
        made.status.success(),
        "squid -z: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut command = net.server_command("squid");
    command.args(["-N", "-f"]).arg(&configuration);
    Ok(Start {
        name: "squid",
        at: "10.88.0.1:3129",
        command,
    })
}

/// Gives the folder to a user whom the program becomes.
fn own(folder: &Path, user: &str) -> Result<()> {
    let user = nix::unistd::User::from_name(user)?.with_context(|| format!("no user {user}"))?;
    nix::unistd::chown(folder, Some(user.uid), Some(user.gid))?;
    Ok(())
}
