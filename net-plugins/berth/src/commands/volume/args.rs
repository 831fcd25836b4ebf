//! What can be said about volumes on the command line.

use std::path::PathBuf;

use berth_types::VolumeName;
use clap::{Args, Subcommand};

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume
    ///
    /// Without options it is a directory. `-o size=10G` makes one that holds no more; `-o type=none -o o=bind -o
    /// device=/path` one that is a directory of yours; `-o type=tmpfs` one in memory; `-o type=ext4 -o device=/dev/sdb1` one
    /// on a device that has a file system.
    Create {
        /// Its name; one is made up if none is given
        #[arg(value_name = "NAME")]
        name: Option<VolumeName>,
        #[command(flatten)]
        options: OptionArgs,
        /// Say what would be made and make nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List volumes
    Ls {
        /// Print names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show volumes: what each is, where its data is, how full it is, who uses it
    Inspect {
        /// The volumes
        #[arg(value_name = "NAME", required = true)]
        names: Vec<VolumeName>,
    },
    /// Remove volumes nobody uses, with their data; bind and device volumes are only forgotten
    Rm {
        /// The volumes
        #[arg(value_name = "NAME", required = true)]
        names: Vec<VolumeName>,
        #[command(flatten)]
        sure: SureArgs,
    },
    /// Remove the volumes that nobody uses
    ///
    /// Only volumes whose names engines made up, unless `--all` is given. berth sees who uses a volume now; a container that is
    /// stopped and refers to one is only known to its engine.
    Prune {
        /// Volumes with names of their own too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        sure: SureArgs,
    },
    /// Show how much volumes hold
    Df {
        /// The volumes; all unless some are named
        #[arg(value_name = "NAME")]
        names: Vec<VolumeName>,
    },
    /// Mount a volume's data on a directory; needs no daemon
    Mount {
        /// The volume
        #[arg(value_name = "NAME")]
        name: VolumeName,
        /// The directory
        #[arg(value_name = "TARGET")]
        target: PathBuf,
        /// Not to be written there
        #[arg(long)]
        read_only: bool,
    },
    /// Take away what `mount` made: on one directory, or all of the volume
    Unmount {
        /// The volume
        #[arg(value_name = "NAME")]
        name: VolumeName,
        /// The directory
        #[arg(value_name = "TARGET", conflicts_with = "user")]
        target: Option<PathBuf>,
        /// Instead, forget a user that is gone: an engine's mount id, as `inspect` shows it
        #[arg(long, value_name = "ID")]
        user: Option<String>,
    },
    /// Give a volume nobody uses another name
    Rename {
        /// The volume
        #[arg(value_name = "NAME")]
        name: VolumeName,
        /// Its new name
        #[arg(value_name = "NEW")]
        new: VolumeName,
    },
    /// Give a sized volume more room, or a tmpfs another size; it may be in use
    Resize {
        /// The volume
        #[arg(value_name = "NAME")]
        name: VolumeName,
        /// Its new size, for instance 20G
        #[arg(value_name = "SIZE")]
        size: String,
    },
    /// Make a volume with the data of another; contents are shared where the file system can
    Clone {
        /// The volume
        #[arg(value_name = "NAME")]
        name: VolumeName,
        /// The new one
        #[arg(value_name = "NEW")]
        new: VolumeName,
        #[command(flatten)]
        options: OptionArgs,
    },
    /// Write a volume's data as a tar archive with a checksum
    Export {
        /// The volume
        #[arg(value_name = "NAME")]
        name: VolumeName,
        /// The archive, which must not exist; standard output unless given
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Compress it
        #[arg(long)]
        zstd: bool,
    },
    /// Make a volume of an archive: one of berth's, or any tar, compressed by zstd or not
    Import {
        /// The new volume
        #[arg(value_name = "NAME")]
        name: VolumeName,
        /// The archive; standard input unless given
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        options: OptionArgs,
    },
}

/// A volume's options.
#[derive(Debug, Args)]
pub(crate) struct OptionArgs {
    /// An option: size, fs, sparse, uid, gid, mode; or type, o, device, create
    #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) options: Vec<(String, String)>,
}

/// Before data is destroyed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SureArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Say what would be removed and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
