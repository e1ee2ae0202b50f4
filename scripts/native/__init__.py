"""Real MariaDB, Redis and Kafka as plain processes of this checkout, on ports and data folders of their own.

cli.py reads the command line; lifecycle.py starts and stops; mariadb.py, redis.py and kafka.py know one server each;
process.py proves that a process is one of ours before it is signalled; packages.py installs what is absent.
"""
