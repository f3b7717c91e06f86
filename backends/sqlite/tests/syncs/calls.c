/* Loaded before the C library: writes down each call that syncs a file, and fails those on files that it is told. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int call(long number, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, sizeof path - 1);
    path[bytes < 0 ? 0 : bytes] = 0;
    const char *calls = getenv("STRONGROOM_TEST_CALLS"), *fails = getenv("STRONGROOM_TEST_FAILS");
    int out = calls ? open(calls, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (out >= 0) {
        dprintf(out, "%s\n", path);
        close(out);
    }
    /* As long as there is a file of that name with `.fails` after it. */
    if (fails && strcmp(path, fails) == 0 && access(strcat(path, ".fails"), F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, fd);
}

int fsync(int fd) { return call(SYS_fsync, fd); }
int fdatasync(int fd) { return call(SYS_fdatasync, fd); }
