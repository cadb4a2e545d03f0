"""A gate before an application that reads its connection only at start.

It passes requests on; holds them while the database is switched; has the application restarted
when its connection has changed; and lets them go when it answers again.
"""
