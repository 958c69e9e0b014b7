"""Label Studio: tasks for annotators, votes back, and the local server.

The trip of a vote, from the queue to Label Studio and back. Each file calls only the files
below it:

1. ``sync``: ``push_faces`` reads the table ``queue``, ``pull_votes`` appends to ``annotations``.
2. ``users``: the account of a vote, as pseudonym and rater kind.
3. ``tasks``: one task per face, opened and closed by missing votes.
4. ``projects``: the project of a page of questions.
5. ``workspace``: the home, its options, and a client that is signed in.
6. ``event_log``: annotations on the server compared with those in the table, as events.
7. ``answers``: an annotation's result as columns of the table.
8. ``client``: requests through label-studio-sdk.

Items that are no faces: ``item_page`` is a page of typed questions, ``item_sync`` makes its
tasks, ``item_answers`` reads its results.

Beside the trip: ``server`` and ``installation`` run the local server, ``labeling_config`` and
``guide`` make the page, ``media`` the addresses of pictures, ``webhook`` signals a change, and
``progress`` counts votes.
"""
