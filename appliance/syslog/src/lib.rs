//! Syslog messages, without sockets and files.
