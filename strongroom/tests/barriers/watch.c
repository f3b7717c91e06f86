/* watch FOLDER LOG SECONDS PROGRAM ARGUMENT...: runs a program, and writes down each call to the kernel that it makes in the folder and that
   changes a file, gives or takes a name, or makes durable. The kernel itself holds them up and tells of them (seccomp), whichever library
   makes them, in whichever thread. Of what opens a file it is written down whether that makes it (under its own name) or empties it
   (`truncate`). Not seen are stores into a file that is mapped, ioctl (such as FICLONE), and what changes permissions, times or attributes
   alone.

   A line a call: its name and the files or folders that it is called on, two for one that gives a name to what had another, each after a
   tab. What the program itself appends to the log stands among them at its place. A call stands there before it is done: where one thread
   writes while another makes durable, the order says nothing.

   It ends with 125, and one line that says why, where it cannot see what there is to see, or the program takes longer than so many
   seconds: then nothing is shown. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What the arguments of a call say of files. */
enum form {
    NONE,
    OPENED,
    OPENED_THIRD,
    PATH,
    PATH_SECOND,
    PATHS,
    PATH_FROM,
    PATH_FROM_SECOND,
    PATHS_FROM,
    /* With flags: after the path, always to create and empty, and in a structure. */
    OPENS,
    CREATES,
    OPENS_FROM,
    OPENS_FROM_HOW,
    /* What goes past this. */
    UNSEEN,
};

static const struct {
    int number;
    const char *name;
    enum form form;
} CALLS[] = {
#define CALL(name, form) {SYS_##name, #name, form}
    CALL(fsync, OPENED),
    CALL(fdatasync, OPENED),
    CALL(syncfs, OPENED),
#ifdef SYS_sync_file_range
    CALL(sync_file_range, OPENED),
#endif
#ifdef SYS_sync_file_range2
    CALL(sync_file_range2, OPENED),
#endif
    CALL(write, OPENED),
    CALL(writev, OPENED),
    CALL(pwrite64, OPENED),
    CALL(pwritev, OPENED),
    CALL(pwritev2, OPENED),
    CALL(ftruncate, OPENED),
    CALL(sendfile, OPENED),
    CALL(copy_file_range, OPENED_THIRD),
    CALL(splice, OPENED_THIRD),
    CALL(truncate, PATH),
    CALL(fallocate, OPENED),
    CALL(sync, NONE),
    CALL(msync, NONE),
#ifdef SYS_unlink
    CALL(unlink, PATH),
#endif
#ifdef SYS_mkdir
    CALL(mkdir, PATH),
#endif
#ifdef SYS_rename
    CALL(rename, PATHS),
#endif
#ifdef SYS_link
    CALL(link, PATHS),
#endif
    CALL(unlinkat, PATH_FROM),
    CALL(mkdirat, PATH_FROM),
#ifdef SYS_renameat
    CALL(renameat, PATHS_FROM),
#endif
    CALL(renameat2, PATHS_FROM),
    CALL(linkat, PATHS_FROM),
#ifdef SYS_rmdir
    CALL(rmdir, PATH),
#endif
#ifdef SYS_symlink
    CALL(symlink, PATH_SECOND),
#endif
    CALL(symlinkat, PATH_FROM_SECOND),
#ifdef SYS_open
    CALL(open, OPENS),
#endif
#ifdef SYS_creat
    CALL(creat, CREATES),
#endif
    CALL(openat, OPENS_FROM),
#ifdef SYS_openat2
    CALL(openat2, OPENS_FROM_HOW),
#endif
#ifdef SYS_io_uring_enter
    CALL(io_uring_setup, UNSEEN),
    CALL(io_uring_enter, UNSEEN),
#endif
};
enum { COUNT = sizeof CALLS / sizeof *CALLS };

static void fail(const char *what) {
    fprintf(stderr, "watch: %s: %s\n", what, strerror(errno));
    exit(125);
}

/* From here on the kernel tells of these calls by what is answered. */
static int listener(void) {
    struct sock_filter code[COUNT + 3], *next = code;
    *next++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++)
        *next++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, COUNT - i, 0);
    *next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    *next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {.len = (unsigned short)(next - code), .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail("no new privileges");
    int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (fd < 0)
        fail("not tested: the kernel does not tell of calls here (seccomp, which takes Linux 5.5, and is not had in gVisor, nor where "
             "something else listens or a container forbids it)");
    return fd;
}

/* One file descriptor goes over a socket. */
union packet {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr aligned;
};

static void send_fd(int to, int fd) {
    union packet control = {0};
    struct iovec one = {"", 1};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(to, &message, 0) != 1)
        _exit(125);
}

static int receive_fd(int from) {
    union packet control;
    char byte;
    int fd;
    struct iovec one = {&byte, 1};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(from, &message, 0) != 1 || !CMSG_FIRSTHDR(&message))
        exit(125); /* the other side has said why */
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* What stands at an address of the program, at most so many bytes; answers how many. */
static size_t memory_at(unsigned pid, unsigned long long address, void *to, size_t size) {
    char memory[64];
    snprintf(memory, sizeof memory, "/proc/%u/mem", pid);
    int fd = open(memory, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? -1 : pread(fd, to, size, (off_t)address);
    if (bytes < 0)
        fail("not tested: the program's memory, which has the paths, cannot be read (/proc/PID/mem; kernel.yama.ptrace_scope, hidepid)");
    close(fd);
    return (size_t)bytes;
}

static void text_at(unsigned pid, unsigned long long address, char *text) {
    text[memory_at(pid, address, text, PATH_MAX - 1)] = 0;
}

/* What a descriptor of the program is open on; its working directory for AT_FDCWD. */
static void opened(unsigned pid, int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/%u/cwd" : "/proc/%u/fd/%d", pid, fd);
    ssize_t bytes = readlink(link, path, PATH_MAX - 1);
    path[bytes < 0 ? 0 : bytes] = 0;
}

/* The path at an address, from a folder on. */
static void path_at(unsigned pid, int folder, unsigned long long address, char *path) {
    char rest[PATH_MAX];
    text_at(pid, address, rest);
    path[0] = 0;
    if (rest[0] != '/') {
        opened(pid, folder, path);
        strncat(path, "/", 2);
    }
    strncat(path, rest, PATH_MAX - 1);
}

/* The files or folders that a call is on: by the form of its arguments. */
static void places_of(const struct seccomp_notif *call, enum form form, char *one, char *other) {
    const unsigned long long *given = (const unsigned long long *)call->data.args;
    one[0] = other[0] = 0;
    switch (form) {
    case NONE:
    case UNSEEN:
        break;
    case OPENED:
        opened(call->pid, (int)given[0], one);
        break;
    case OPENED_THIRD:
        opened(call->pid, (int)given[2], one);
        break;
    case PATH:
    case OPENS:
    case CREATES:
        path_at(call->pid, AT_FDCWD, given[0], one);
        break;
    case PATH_SECOND:
        path_at(call->pid, AT_FDCWD, given[1], one);
        break;
    case PATHS:
        path_at(call->pid, AT_FDCWD, given[0], one);
        path_at(call->pid, AT_FDCWD, given[1], other);
        break;
    case PATH_FROM:
    case OPENS_FROM:
    case OPENS_FROM_HOW:
        path_at(call->pid, (int)given[0], given[1], one);
        break;
    case PATH_FROM_SECOND:
        path_at(call->pid, (int)given[1], given[2], one);
        break;
    case PATHS_FROM:
        path_at(call->pid, (int)given[0], given[1], one);
        path_at(call->pid, (int)given[2], given[3], other);
        break;
    }
}

/* The flags that a file is opened with. */
static int flags_of(const struct seccomp_notif *call, enum form form) {
    unsigned long long how = 0;
    switch (form) {
    case OPENS:
        return (int)call->data.args[1];
    case CREATES:
        return O_CREAT | O_TRUNC;
    case OPENS_FROM:
        return (int)call->data.args[2];
    case OPENS_FROM_HOW:
        memory_at(call->pid, call->data.args[2], &how, sizeof how);
        return (int)how;
    default:
        return 0;
    }
}

/* What opening a file does to it; nothing, mostly. It is not opened yet. */
static const char *done_by_opening(const char *name, const char *path, int flags) {
    /* O_SYNC has the bit of O_DSYNC. */
    if (flags & O_DSYNC)
        fail("not tested: each write to a file that is opened with O_SYNC or O_DSYNC waits for the medium, and is not counted");
    struct stat there;
    if (lstat(path, &there))
        return flags & O_CREAT ? name : NULL;
    return flags & O_TRUNC ? "truncate" : NULL;
}

static int is_in(const char *folder, const char *path) { return !strncmp(path, folder, strlen(folder)); }

static void note(const struct seccomp_notif *call, const char *folder, int log) {
    char one[2 * PATH_MAX], other[2 * PATH_MAX], line[4 * PATH_MAX + 64];
    for (int i = 0; i < COUNT; i++) {
        if (CALLS[i].number != call->data.nr)
            continue;
        const char *name = CALLS[i].name;
        enum form form = CALLS[i].form;
        if (form == UNSEEN)
            fail("not tested: what is asked for by io_uring is not seen");
        places_of(call, form, one, other);
        if (form != NONE && !is_in(folder, one) && !is_in(folder, other))
            return;
        if (form == OPENS || form == CREATES || form == OPENS_FROM || form == OPENS_FROM_HOW)
            name = done_by_opening(name, one, flags_of(call, form));
        if (!name)
            return;
        int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", name, one, other);
        if (write(log, line, (size_t)length) != length)
            fail("the log");
    }
}

static long long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void watch(int calls, const char *folder, int log, long long seconds) {
    long long end = milliseconds() + seconds * 1000;
    for (;;) {
        struct pollfd ready = {.fd = calls, .events = POLLIN};
        long long left = end - milliseconds();
        int count = left > 0 ? poll(&ready, 1, (int)left) : 0;
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            fail("waiting");
        errno = ETIMEDOUT;
        if (count == 0)
            fail("the program does not come to its end");
        /* The last thread has ended. */
        if (!(ready.revents & POLLIN))
            return;
        struct seccomp_notif call = {0};
        if (ioctl(calls, SECCOMP_IOCTL_NOTIF_RECV, &call)) {
            /* Who made it is dead. */
            if (errno == ENOENT || errno == EINTR)
                continue;
            fail("a call");
        }
        note(&call, folder, log);
        struct seccomp_notif_resp answer = {.id = call.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        if (ioctl(calls, SECCOMP_IOCTL_NOTIF_SEND, &answer) && errno != ENOENT)
            fail("letting a call go on");
    }
}

int main(int count, char **arguments) {
    int sockets[2], status;
    if (count < 5 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
        fail("watch FOLDER LOG SECONDS PROGRAM ARGUMENT...");
    int log = open(arguments[2], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (log < 0)
        fail(arguments[2]);
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        close(sockets[0]);
        /* It does not outlive who watches it. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL))
            fail("the end of both");
        int calls = listener();
        send_fd(sockets[1], calls);
        close(calls);
        close(sockets[1]);
        execvp(arguments[4], arguments + 4);
        _exit(127);
    }
    close(sockets[1]);
    watch(receive_fd(sockets[0]), arguments[1], log, atoll(arguments[3]));
    if (waitpid(child, &status, 0) != child)
        fail("the program's end");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}
