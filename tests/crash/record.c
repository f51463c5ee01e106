/* Records what a process writes to a SQLite file and its log, and what of that is on the disk for certain.
 *
 * Preloaded (LD_PRELOAD) with RECORD_FILE, the database's path, and RECORD_LOG, where records are appended:
 * a header of five 64-bit numbers (kind, file, offset, length, covered), then the bytes of a write.
 * A sync covers the records that were there when it began.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITE, TRUNCATE, SYNC, UNLINK };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int out = -1;
static uint64_t records;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* 0: the database, 1: its log, -1: anything else. */
static int which(const char *path) {
    const char *file = getenv("RECORD_FILE");
    if (!file || strncmp(path, file, strlen(file))) return -1;
    path += strlen(file);
    return !*path ? 0 : !strcmp(path, "-wal") ? 1 : -1;
}

static int which_fd(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return -1;
    path[size] = 0;
    return which(path);
}

static void put(const void *data, size_t size) {
    if (REAL(write)(out, data, size) != (ssize_t)size) abort();
}

/* Call with the lock held. */
static void record(uint64_t kind, int file, uint64_t offset, uint64_t length, uint64_t covered, const void *data) {
    uint64_t header[5] = {kind, (uint64_t)file, offset, length, covered};
    if (out < 0) out = open(getenv("RECORD_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char *whole = malloc(sizeof header + (data ? length : 0));
    memcpy(whole, header, sizeof header);
    if (data) memcpy(whole + sizeof header, data, length);
    put(whole, sizeof header + (data ? length : 0));
    free(whole);
    records++;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    int file = which_fd(fd);
    if (file < 0) return REAL(pwrite64)(fd, data, size, offset);
    pthread_mutex_lock(&lock);
    ssize_t done = REAL(pwrite64)(fd, data, size, offset);
    if (done > 0) record(WRITE, file, (uint64_t)offset, (uint64_t)done, 0, data);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t write(int fd, const void *data, size_t size) {
    if (which_fd(fd) >= 0) abort(); /* SQLite writes at offsets alone */
    return REAL(write)(fd, data, size);
}

int ftruncate64(int fd, off64_t size) {
    int file = which_fd(fd);
    if (file < 0) return REAL(ftruncate64)(fd, size);
    pthread_mutex_lock(&lock);
    int done = REAL(ftruncate64)(fd, size);
    if (!done) record(TRUNCATE, file, (uint64_t)size, 0, 0, NULL);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int (*sync)(int)) {
    int file = which_fd(fd);
    if (file < 0) return sync(fd);
    pthread_mutex_lock(&lock);
    uint64_t covered = records;
    pthread_mutex_unlock(&lock);
    int done = sync(fd);
    if (!done) {
        pthread_mutex_lock(&lock);
        record(SYNC, file, 0, 0, covered, NULL);
        pthread_mutex_unlock(&lock);
    }
    return done;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

int unlink(const char *path) {
    int file = which(path);
    pthread_mutex_lock(&lock);
    int done = REAL(unlink)(path);
    if (!done && file >= 0) record(UNLINK, file, 0, 0, 0, NULL);
    pthread_mutex_unlock(&lock);
    return done;
}
