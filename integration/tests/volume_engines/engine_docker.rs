//! Scenarios 11 to 16 and 18, as typed.

use berth_integration::Debian;
use berth_integration::engine::berth;

use crate::common::{data, docker_volumes, on_both_debians, volume};

on_both_debians!(
    volumes_are_made_shown_and_removed,
    data_outlives_containers_and_is_shared,
    anonymous_volumes_go_with_their_containers,
    an_empty_volume_is_filled_from_the_image,
    a_bind_volume_is_the_path,
    sizes_memory_and_devices,
    data_is_moved_backed_up_and_restored,
    mounts_are_counted_right_through_docker_cp,
);

/// Scenario 11.
fn volumes_are_made_shown_and_removed(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        assert_eq!(stage.types("docker volume create -d rvolume mysql_data"), "mysql_data");
        let listed = stage.docker.run("volume ls");
        assert!(listed.lines().any(|line| line.split_whitespace().eq(["rvolume", "mysql_data"])), "{listed}");
        stage.types("docker volume create -d rvolume -o size=32M -o uid=999 sized");
        let shown = volume(stage, "sized");
        assert_eq!((shown["Driver"].as_str(), shown["Scope"].as_str()), (Some("rvolume"), Some("local")));
        assert_eq!(shown["Status"]["kind"], "sized");
        assert_eq!(shown["Status"]["options"]["size"], "32M");
        assert_eq!(shown["Status"]["size"], "32 MiB");
        assert_eq!(shown["Options"]["size"], "32M");
        let plain = volume(stage, "mysql_data");
        assert_eq!(plain["Mountpoint"], "/var/lib/berth/volumes/mysql_data/_data");
        assert!(plain["Status"]["used"].as_str().unwrap().contains('B'), "{plain}");
        stage.types("docker run -d --name db -v mysql_data:/var/lib/mysql mysql");
        let text = stage.refuses("docker volume rm mysql_data");
        assert!(text.contains("in use"), "{text}");
        // Berth's own command sees it too.
        let ran = berth(stage.host, ["volume", "rm", "--yes", "mysql_data"]).output();
        assert!(!ran.status.success() && ran.stderr.contains("is in use by docker's mount"), "{ran}");
        assert_eq!(volume(stage, "mysql_data")["Status"]["users"].as_array().unwrap().len(), 1);
        stage.types("docker rm -f db\ndocker volume rm mysql_data");
        assert_eq!(stage.docker.run("volume ls --quiet"), "sized");
        for (options, words) in [
            ("-o size=0", "too small"),
            ("-o size=-5G", "not a size"),
            ("-o type=nfs -o o=addr=10.0.0.1,rw -o device=:/x", "is not supported"),
            ("-o type=ext4 -o device=/dev/sdzz", "no such file"),
            ("-o colour=blue", "has no option `colour`"),
            ("-o type=tmpfs -o device=tmpfs -o o=size=1m,suid", "`suid` in `o` is not allowed"),
        ] {
            let text = stage.refuses(&format!("docker volume create -d rvolume {options} bad"));
            assert!(text.contains(words), "{options}: {text}");
        }
        for name in ["../evil", "a/b", ".trash"] {
            let text = stage.refuses(&format!("docker volume create -d rvolume {name}"));
            assert!(text.contains("not allowed") || text.contains("invalid"), "{name}: {text}");
        }
        assert_eq!(stage.docker.run("volume ls --quiet"), "sized");
    });
}

/// Scenario 12.
fn data_outlives_containers_and_is_shared(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        stage.types(
            "docker run -d --name db --volume-driver rvolume -v mysql_data:/var/lib/mysql mysql
             docker exec db sh -c 'echo one > /var/lib/mysql/file'
             docker rm -f db
             docker run -d --name db -v mysql_data:/var/lib/mysql mysql",
        );
        assert_eq!(stage.docker.exec("db", "cat /var/lib/mysql/file"), "one");
        stage.types("docker run -d --name other -v mysql_data:/data:ro nginx");
        stage.types("docker exec db sh -c 'echo two > /var/lib/mysql/file'");
        assert_eq!(stage.docker.exec("other", "cat /data/file"), "two");
        assert!(stage.refuses("docker exec other touch /data/x").contains("Read-only"));
        let from = "docker run --rm --volumes-from db busybox cat /var/lib/mysql/file";
        assert_eq!(stage.types(from), "two");
        stage.types("docker run -d --name sized --mount type=volume,src=limited,dst=/data,volume-driver=rvolume,volume-opt=size=16M nginx");
        assert_eq!(volume(stage, "limited")["Status"]["options"]["size"], "16M");
        assert_eq!(stage.docker.exec("sized", "ls -A /data"), "");
        stage.types("docker rm -f db other sized");
        assert_eq!(stage.types("docker run --rm -v mysql_data:/d busybox cat /d/file"), "two");
    });
}

/// Scenario 13.
fn anonymous_volumes_go_with_their_containers(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        stage.types("docker run --rm --volume-driver rvolume -v /data busybox touch /data/x");
        assert_eq!(stage.docker.run("volume ls --quiet"), "");
        stage.types("docker run -d --name kept --volume-driver rvolume -v /data nginx");
        let name = stage.docker.run("volume ls --quiet --filter driver=rvolume");
        assert_eq!(name.len(), 64);
        stage.types("docker rm -f kept");
        assert_eq!(stage.docker.run("volume ls --quiet"), name);
        // What Docker cannot prune of a plugin's volumes, berth can.
        assert_eq!(berth(stage.host, ["volume", "prune", "--yes"]).run(), format!("removed volume {name}"));
        assert_eq!(stage.docker.run("volume ls --quiet"), "");
    });
}

/// Scenario 14.
fn an_empty_volume_is_filled_from_the_image(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        for (name, options) in [("plain", ""), ("sized", "-o size=16M")] {
            stage.types(&format!("docker volume create -d rvolume {options} {name}"));
            let ls = format!("docker run --rm -v {name}:/www busybox ls /www/cgi-bin");
            assert_eq!(stage.types(&ls), "index.cgi", "filled, as Docker's own are");
            stage.types(&format!(
                "docker run --rm -v {name}:/x busybox sh -c 'rm -r /x/cgi-bin; touch /x/own'"
            ));
            assert_eq!(
                stage.types(&format!("docker run --rm -v {name}:/www busybox ls /www")),
                "own",
                "not twice"
            );
        }
        stage.types("docker volume create -d rvolume empty");
        assert_eq!(stage.types("docker run --rm -v empty:/www:nocopy busybox ls -A /www"), "");
    });
}

/// Scenario 15.
fn a_bind_volume_is_the_path(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        let path = stage.host.dir().join("srv");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("old"), "old").unwrap();
        let path = path.display().to_string();
        stage.types(&format!("docker volume create -d rvolume -o type=none -o o=bind -o device={path} site"));
        assert_eq!(volume(stage, "site")["Options"]["device"], path);
        assert_eq!(
            stage.types("docker run --rm -v site:/site busybox sh -c 'cat /site/old; echo new > /site/new'"),
            "old"
        );
        assert_eq!(std::fs::read_to_string(format!("{path}/new")).unwrap(), "new\n");
        stage.types("docker volume rm site");
        assert_eq!(std::fs::read_to_string(format!("{path}/old")).unwrap(), "old");
    });
}

/// Scenario 16.
fn sizes_memory_and_devices(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        let host = stage.host;
        stage.types(
            "docker volume create -d rvolume -o type=tmpfs -o device=tmpfs -o o=size=4m,uid=1000 fast
             docker run -d --name one -v fast:/fast busybox
             docker exec one sh -c 'echo gone > /fast/file; stat -c %u /fast'",
        );
        assert!(
            stage
                .refuses("docker exec one dd if=/dev/zero of=/fast/big bs=1024k count=8")
                .contains("No space left")
        );
        stage.types("docker rm -f one");
        assert_eq!(stage.types("docker run --rm -v fast:/fast busybox ls -A /fast"), "");
        let image = host.dir().join("disk.img").display().to_string();
        host.run(&format!("truncate -s 32M {image} && mkfs.ext4 -q {image}"));
        stage.types(&format!("docker volume create -d rvolume -o type=ext4 -o device={image} disk"));
        stage.types("docker run --rm -v disk:/disk busybox sh -c 'echo data > /disk/file'");
        assert_eq!(stage.types("docker run --rm -v disk:/disk busybox cat /disk/file"), "data");
        let device = host.run(&format!("losetup --find --show {image}"));
        stage.types(&format!("docker volume create -d rvolume -o type=ext4 -o device={device} block"));
        assert_eq!(stage.types("docker run --rm -v block:/disk busybox cat /disk/file"), "data");
        stage.types("docker volume rm disk block");
        host.run(&format!("losetup --detach {device}"));
        stage.types("docker volume create -d rvolume -o size=24M limited");
        stage.types("docker run -d --name full -v limited:/data busybox");
        let text = stage.refuses("docker exec full dd if=/dev/zero of=/data/big bs=1024k");
        assert!(text.contains("No space left"), "{text}");
        assert_eq!(stage.docker.exec("full", "ls -A /data"), "big");
        stage.types("docker rm -f full");
    });
}

/// Scenario 18.
fn data_is_moved_backed_up_and_restored(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        let bind = stage.host.dir().join("backup");
        std::fs::create_dir(&bind).unwrap();
        let bind = bind.display();
        stage.types(&format!(
            "docker volume create -d rvolume data
             docker run --rm -v data:/data busybox sh -c 'mkdir /data/d && echo one > /data/d/file && chown 33:44 /data/d/file && chmod 640 /data/d/file'
             docker run --rm -v data:/from -v {bind}:/to busybox cp -a /from/. /to
             docker volume create -d rvolume again
             docker run --rm -v {bind}:/from:ro -v again:/to busybox cp -a /from/. /to"
        ));
        let stat = |volume: &str| {
            stage.types(&format!("docker run --rm -v {volume}:/v busybox sh -c 'stat -c \"%a %u %g %s\" /v/d/file; cat /v/d/file'"))
        };
        assert_eq!(stat("again"), "640 33 44 4\none");
        // Backed up by a container, restored by another; and by berth, which keeps more.
        stage.types(&format!(
            "docker run --rm -v data:/data -v {bind}:/backup busybox tar -cf /backup/data.tar -C /data .
             docker volume create -d rvolume restored
             docker run --rm -v restored:/data -v {bind}:/backup busybox tar -xf /backup/data.tar -C /data"
        ));
        assert_eq!(stat("restored"), "640 33 44 4\none");
        let file = format!("{bind}/berth.tar");
        berth(stage.host, ["volume", "export", "data", "--file", &file]).run();
        berth(stage.host, ["volume", "import", "imported", &file]).run();
        assert_eq!(stat("imported"), "640 33 44 4\none", "Docker sees what berth made");
        berth(stage.host, ["volume", "clone", "data", "cloned"]).run();
        assert_eq!(stat("cloned"), "640 33 44 4\none");
    });
}

fn mounts_are_counted_right_through_docker_cp(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        let file = stage.host.dir().join("file");
        std::fs::write(&file, "copied").unwrap();
        stage.types(
            "docker volume create -d rvolume -o size=16M sized\ndocker run -d --name one -v sized:/data busybox",
        );
        let before = data(stage, "sized");
        for _ in 0..3 {
            stage.types(&format!("docker cp {} one:/data/file", file.display()));
        }
        stage.types("docker cp one:/data/file /run/copied-back");
        assert_eq!(stage.host.run("cat /run/copied-back && rm /run/copied-back"), "copied");
        // Still mounted, and still the same.
        assert_eq!(data(stage, "sized"), before);
        assert_eq!(stage.docker.exec("one", "cat /data/file"), "copied");
        stage.types(
            "docker run --rm -v sized:/data busybox cat /data/file\ndocker restart -t 1 one\ndocker stop -t 1 one",
        );
        assert_eq!(volume(stage, "sized")["Status"]["users"].as_array().unwrap().len(), 0);
        assert_eq!(volume(stage, "sized")["Status"]["mounted"], false);
        stage.types("docker start one");
        assert_eq!(stage.docker.exec("one", "cat /data/file"), "copied");
        stage.types("docker rm -f one");
        assert_eq!(volume(stage, "sized")["Status"]["mounted"], false);
    });
}
