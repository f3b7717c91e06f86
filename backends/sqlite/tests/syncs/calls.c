/* Loaded before the C library: writes down each call that syncs a file or writes to one, and fails those that it is told. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Writes the call down; whether the file is the one that is told, and there is a file of that name with this after it. */
static int note(int fd, const char *what, const char *fails_with) {
    char link[64], path[4096 + 16];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, 4095);
    path[bytes < 0 ? 0 : bytes] = 0;
    if (path[0] != '/')
        return 0;
    const char *calls = getenv("STRONGROOM_TEST_CALLS"), *fails = getenv("STRONGROOM_TEST_FAILS");
    int out = calls ? open(calls, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (out >= 0) {
        char line[4096 + 32];
        int length = snprintf(line, sizeof line, "%s%s\n", path, what);
        syscall(SYS_write, out, line, length);
        close(out);
    }
    return fails && strcmp(path, fails) == 0 && access(strcat(path, fails_with), F_OK) == 0;
}

static int call(long number, int fd) {
    if (note(fd, "", ".fails")) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, fd);
}

int fsync(int fd) { return call(SYS_fsync, fd); }
int fdatasync(int fd) { return call(SYS_fdatasync, fd); }

/* SQLite positions a file before it writes. */
ssize_t write(int fd, const void *bytes, size_t length) {
    if (note(fd, ".written", ".quota") && lseek(fd, 0, SEEK_CUR) + (off_t)length > 1 << 20) {
        errno = EDQUOT;
        return -1;
    }
    return syscall(SYS_write, fd, bytes, length);
}
