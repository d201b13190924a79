#!/usr/bin/env bash
# rsync over ssh, to an sshd of its own: a tree there, its changes there, and all of it back.
# Cases: rsync
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

needs rsync rsync
needs ssh openssh-client
needs sshd openssh-server
skip_if_missing

small_files=300
large_files=4
large_bytes=16777216

shell=$(getent passwd "$user" | cut -d: -f7)
[[ $shell != */nologin && $shell != */false ]] || skip_all "the user $user has no shell to log in to"

ssh-keygen -q -t ed25519 -N '' -f "$server_dir/host_key"
ssh-keygen -q -t ed25519 -N '' -f "$dir/key"
cp "$dir/key.pub" "$server_dir/authorized_keys"
[ ${#as_user[@]} -eq 0 ] || chown "$user" "$server_dir/host_key"
free_port
sshd_port=$port
cat >"$server_dir/sshd_config" <<END
ListenAddress 127.0.0.1:$sshd_port
HostKey $server_dir/host_key
AuthorizedKeysFile $server_dir/authorized_keys
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
X11Forwarding no
END
# It starts itself anew for each connection, so it wants its whole path.
start sshd "$(command -v sshd)" -D -e -f "$server_dir/sshd_config"
wait_for "sshd" accepts "$sshd_port"

sums() {
    (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
}

case_rsync() {
    local i started_at
    mkdir -p tree/a/b tree/c
    for ((i = 0; i < small_files; i++)); do
        random_bytes $((RANDOM % 20000)) >"tree/a/b/$i"
    done
    for ((i = 0; i < large_files; i++)); do
        random_bytes "$large_bytes" >"tree/c/$i"
    done
    sluice_to "127.0.0.1:$sshd_port"
    export RSYNC_RSH="ssh -F none -p $port -i $dir/key -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR \
-o StrictHostKeyChecking=no -o UserKnownHostsFile=$case_dir/known_hosts"
    started_at=$EPOCHREALTIME
    client rsync -a --delete tree/ "$user@127.0.0.1:$server_dir/tree/"
    figure="$(find tree -type f | wc -l) files, $(rate "$(du -sb tree | cut -f1)" "$started_at") there"
    diff <(sums tree) <(sums "$server_dir/tree")
    # Some bytes of one file change, one file goes, one comes: rsync talks in both directions at once.
    random_bytes 4096 | dd of=tree/c/0 bs=4096 seek=100 conv=notrunc status=none
    rm tree/a/b/0
    random_bytes 100000 >tree/a/new
    client rsync -a --delete --checksum --no-whole-file tree/ "$user@127.0.0.1:$server_dir/tree/"
    client rsync -a "$user@127.0.0.1:$server_dir/tree/" back/
    diff <(sums tree) <(sums back)
    sluice_stop
    expect "connections" 3 "$records"
    figure+=", same sha256 there and back"
}

run_cases
