//! What several tests share.

pub(crate) mod checkpoint_files;
pub(crate) mod hub_server;
pub(crate) mod loopback;
pub(crate) mod run;
pub(crate) mod shrunk;
