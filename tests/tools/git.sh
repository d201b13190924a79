#!/usr/bin/env bash
# git over its own protocol: a clone of a repository, and a push into it.
# Cases: git-clone git-push
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

needs git git
skip_if_missing

commits=20
file_bytes=1000000

export GIT_AUTHOR_NAME=tester GIT_AUTHOR_EMAIL=tester@localhost
export GIT_COMMITTER_NAME=tester GIT_COMMITTER_EMAIL=tester@localhost
git config --global init.defaultBranch main
git config --global gc.auto 0
git config --global core.compression 1

# make_commits REPOSITORY NUMBER
make_commits() {
    local i
    for ((i = 0; i < $2; i++)); do
        random_bytes "$file_bytes" >"$1/file$((i % 10))"
        git -C "$1" add .
        git -C "$1" commit -q -m "change $i"
    done
}

git init -q "$dir/work"
make_commits "$dir/work" "$commits"
git clone -q --bare "$dir/work" "$server_dir/repository.git"
[ ${#as_user[@]} -eq 0 ] || chown -R "$user" "$server_dir/repository.git"
free_port
daemon_port=$port
# Not `git daemon`, which would leave the daemon behind when it is ended.
start git-daemon "$(git --exec-path)/git-daemon" --listen=127.0.0.1 --port="$daemon_port" --base-path="$server_dir" \
    --export-all --enable=receive-pack
wait_for "git-daemon" accepts "$daemon_port"

case_git_clone() {
    sluice_to "127.0.0.1:$daemon_port"
    client git clone -q "git://127.0.0.1:$port/repository.git" clone
    client git -C clone fsck --full --strict
    expect "the clone's head" "$(git -C "$dir/work" rev-parse HEAD)" "$(git -C clone rev-parse HEAD)"
    diff -r -x .git "$dir/work" clone
    sluice_stop
    figure="$commits commits, $bytes_down bytes, fsck is content"
}

case_git_push() {
    sluice_to "127.0.0.1:$daemon_port"
    git clone -q "$dir/work" pushed
    make_commits pushed 5
    client git -C pushed push -q "git://127.0.0.1:$port/repository.git" HEAD:refs/heads/pushed
    expect "the server's head" "$(git -C pushed rev-parse HEAD)" \
        "$(cat "$server_dir/repository.git/refs/heads/pushed")"
    sluice_stop
    client "${as_user[@]}" git --git-dir="$server_dir/repository.git" fsck --full --strict
    figure="5 commits, $bytes_up bytes, fsck is content"
}

run_cases
