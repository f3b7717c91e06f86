/* Loaded before the C library: writes down each call that syncs a file or writes to one, and fails those that it is told. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* A file that has a quota has one of 1 MiB. */
static int put(int fd, size_t length, off64_t at) {
    if (!note(fd, ".written", ".quota") || at + (off64_t)length <= 1 << 20)
        return 0;
    errno = EDQUOT;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    return put(fd, length, lseek64(fd, 0, SEEK_CUR)) ? -1 : syscall(SYS_write, fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    static ssize_t (*next)(int, const void *, size_t, off64_t);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "pwrite64");
    return put(fd, length, at) ? -1 : next(fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }

/* As if another process made a checkpoint: where there is a file of the name of the index with `.busy` after it, for as many tries as it
   has bytes. SQLite's lock for that is one byte. */
static int is_busy(int fd, const struct flock *lock) {
    char link[64], path[4096 + 16];
    struct stat found;
    if (lock->l_type != F_WRLCK || lock->l_start != 121 || lock->l_len != 1)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, 4095);
    path[bytes < 0 ? 0 : bytes] = 0;
    strcat(path, ".busy");
    return stat(path, &found) == 0 && found.st_size > 0 && truncate(path, found.st_size - 1) == 0;
}

static int control(int fd, int command, void *argument) {
    if (command == F_SETLK && is_busy(fd, argument)) {
        errno = EAGAIN;
        return -1;
    }
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

#define CONTROL(name)                                                                                                            \
    int name(int fd, int command, ...) {                                                                                         \
        va_list arguments;                                                                                                       \
        va_start(arguments, command);                                                                                            \
        void *argument = va_arg(arguments, void *);                                                                              \
        va_end(arguments);                                                                                                       \
        return control(fd, command, argument);                                                                                   \
    }
CONTROL(fcntl)
CONTROL(fcntl64)
